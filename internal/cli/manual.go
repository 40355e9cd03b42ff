package cli

const environment = "Every setting is an environment variable, or a line of an env file: adconnector help keys lists them. " +
	"A key can be written as the table has it, or in a form that shells do not drop (service.cron-expression is SERVICE_CRON_EXPRESSION). " +
	"Every secret also comes from a file: its key with .file, a path. NO_COLOR and TERM=dumb keep colours off a terminal, TERM=dumb the progress bar, too."

const (
	fileEnv   = "sample.env: an env file that shows every key and its default; adconnector reads env files exactly as docker run --env-file does"
	fileState = "/var/lib/adconnector/adconnector.db: the state file (service.state-dir): what was delivered and how far changes were followed. Without it the next run sends everything, and deletes nothing that only it knew"
	fileSafe  = "/var/lib/adconnector/adconnector.db.damaged-TIME: a state file that was damaged and is set aside; it can be removed"
)

// manuals are the pages, by the command's name.
var manuals = map[string]manual{
	"adconnector": {
		examples: []example{
			{"See it work, without a directory and without a platform", "adconnector demo"},
			{"Try it without a directory and without a platform, in two terminals", "adconnector sandbox --env-out sandbox.env\nadconnector sync --env-file sandbox.env"},
			{"Find out what is wrong before the first run", "adconnector check --env-file ad.env"},
			{"Run for good, in a container", "docker run -d --name adconnector --restart unless-stopped --stop-timeout 40 \\\n    --env-file ad.env -v adconnector:/var/lib/adconnector adconnector:1.0.0"},
			{"See how it is doing", "docker exec adconnector adconnector status"},
		},
		exits: []int{exitDone, exitFailed, exitUsage, exitRefused, exitLocked, exitHeld, exitRejected, exitInterrupted},
		files: []string{fileEnv, fileState, fileSafe},
		see:   []string{"run", "sync", "check", "status", "keys"},
	},
	"run": {
		examples: []example{
			{"With settings of an env file, and a password of another", "adconnector run --env-file ad.env --env-file secrets.env"},
			{"Every ten minutes, with the log of a terminal", "SERVICE_CRON_EXPRESSION='*/10 * * * *' adconnector run --env-file ad.env --log-format console"},
			{"Look closer for a while, without a restart", "kill -USR1 $(pidof adconnector)\nkill -USR2 $(pidof adconnector)"},
		},
		exits: []int{exitDone, exitFailed, exitUsage, exitLocked, exitInterrupted},
		fails: "the state file cannot be opened at the start for want of space on its disk",
		files: []string{fileEnv, fileState, fileSafe},
		see:   []string{"sync", "check", "status", "keys"},
	},
	"sync": {
		examples: []example{
			{"One run, its account as JSON", "adconnector sync --env-file ad.env --output json"},
			{"What would be sent, deleted and held", "adconnector sync --env-file ad.env --dry-run"},
			{"Release held deletions, after a look", "adconnector sync --env-file ad.env --dry-run --allow-deletes\nadconnector sync --env-file ad.env --allow-deletes"},
		},
		exits: []int{exitDone, exitFailed, exitUsage, exitRefused, exitLocked, exitHeld, exitRejected, exitInterrupted},
		files: []string{fileEnv, fileState, fileSafe},
		see:   []string{"check", "status", "keys"},
	},
	"check": {
		examples: []example{
			{"Before the first run", "adconnector check --env-file ad.env"},
			{"In the container that runs", "docker exec adconnector adconnector check"},
			{"What failed, for a program", "adconnector check --env-file ad.env --output json | jq '.checks[] | select(.result == \"fail\")'"},
		},
		exits: []int{exitDone, exitFailed, exitUsage, exitRefused, exitInterrupted},
		files: []string{fileEnv, fileState},
		see:   []string{"sync", "status", "keys"},
	},
	"status": {
		examples: []example{
			{"Of the container that runs", "docker exec adconnector adconnector status"},
			{"For a program", "adconnector status --env-file ad.env --output json"},
		},
		exits: []int{exitDone, exitFailed, exitUsage, exitLocked, exitInterrupted},
		fails: "the state file is damaged, or cannot be read",
		files: []string{fileEnv, fileState},
		see:   []string{"healthcheck", "sync", "keys"},
	},
	"healthcheck": {
		examples: []example{
			{"As the image does", "adconnector healthcheck"},
			{"In a script", "adconnector healthcheck --env-file ad.env || systemctl restart adconnector"},
		},
		exits: []int{exitDone, exitFailed, exitUsage, exitInterrupted},
		fails: "the daemon is stuck, does not run, or is another one's",
		files: []string{fileState},
		see:   []string{"status", "run"},
	},
	"sandbox": {
		examples: []example{
			{"In one terminal, and the connector in another", "adconnector sandbox --env-out sandbox.env\nadconnector sync --env-file sandbox.env"},
			{"A large directory, the same each time, beside another sandbox", "adconnector sandbox --users 100000 --groups 5000 --seed 7 \\\n    --ldap 127.0.0.1:0 --ldaps 127.0.0.1:0 --gateway 127.0.0.1:0 --env-out large.env"},
		},
		exits: []int{exitDone, exitFailed, exitUsage, exitInterrupted},
		fails: "directory or gateway could not be served to the end",
		files: []string{"FILE of --env-out: settings for the connector, good until the sandbox ends"},
		see:   []string{"sync", "check", "run"},
	},
	"demo": {
		examples: []example{
			{"The whole connector at work, in a few seconds", "adconnector demo"},
			{"To look at what arrived, until Ctrl-C", "adconnector demo --keep --gateway 127.0.0.1:18080"},
			{"A large directory, with the connector's own log", "adconnector demo --users 100000 --groups 5000 --log-level info"},
		},
		exits: []int{exitDone, exitFailed, exitUsage, exitRefused, exitInterrupted},
		fails: "a run failed, or the gateway does not hold what the directory says",
		see:   []string{"sandbox", "sync", "run"},
	},
	"version": {
		examples: []example{{"To tell somebody which one it is", "adconnector version"}},
		exits:    []int{exitDone, exitUsage},
		see:      []string{"adconnector"},
	},
	"keys": {
		examples: []example{
			{"All of them", "adconnector keys"},
			{"Those of the directory", "adconnector keys | grep -A4 '^    ldap'"},
		},
		exits: []int{exitDone, exitUsage},
		files: []string{fileEnv},
		see:   []string{"check", "run"},
	},
	"completion": {
		examples: []example{
			{"bash, for this shell and for good (needs the package bash-completion)", "source <(adconnector completion bash)\nadconnector completion bash > /etc/bash_completion.d/adconnector"},
			{"zsh", "adconnector completion zsh > \"${fpath[1]}/_adconnector\""},
			{"fish", "adconnector completion fish > ~/.config/fish/completions/adconnector.fish"},
			{"PowerShell", "adconnector completion powershell | Out-String | Invoke-Expression"},
		},
		exits: []int{exitDone, exitUsage},
		see:   []string{"adconnector"},
	},
	"help": {
		examples: []example{
			{"The page of sync", "adconnector help sync"},
			{"Every key", "adconnector help keys"},
		},
		exits: []int{exitDone, exitUsage},
		see:   []string{"adconnector", "keys"},
	},
}
