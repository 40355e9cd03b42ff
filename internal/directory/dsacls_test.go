package directory

import (
	"strings"
	"testing"
)

// TestGrantCommand tests that no name from a server is interpreted by a shell in the command, neither
// for cmd.exe and PowerShell nor for dsacls.
func TestGrantCommand(t *testing.T) {
	t.Parallel()
	const dn, account = `OU=R&D (Köln),DC=corp`, `CORP\svc-qualys`
	for _, test := range []struct{ name, dn, account, want string }{
		{"plain", dn, account, `dsacls "` + dn + `" /I:T /G "` + account + `:LCRP"`},
		{"other scripts", "OU=営業ー部,DC=corp", "svc@corp.test", `dsacls "OU=営業ー部,DC=corp" /I:T /G "svc@corp.test:LCRP"`},
		{"escaped comma", `OU=a\, b,DC=corp`, account, `dsacls "OU=a\, b,DC=corp" /I:T /G "` + account + `:LCRP"`},
		{"GUID", "<GUID=ab>", account, `dsacls "<GUID=ab>" /I:T /G "` + account + `:LCRP"`},
		{"no name", dn, UnknownAccount, `dsacls "` + dn + `" /I:T /G "ACCOUNT:LCRP"`},
		{"both", `OU="`, `"`, `dsacls "DN" /I:T /G "ACCOUNT:LCRP" (DN is the object's DN, ACCOUNT is the account's name, which must be quoted for the shell)`},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if got := GrantCommand(test.dn, test.account, ReadObject); got != test.want {
				t.Errorf("%s\nwant %s", got, test.want)
			}
		})
	}
	for name, odd := range map[string]string{
		"quotation mark": `DC=x" & calc & "`, "escaped quotation mark": `DC=x\"y`, "typographic quotation mark": "DC=x” ; calc “", "full-width quotation mark": "DC=x＂y",
		"modifier like a quotation mark": "DC=xʺ & calc", "variable of cmd.exe": "DC=%COMSPEC%", "delayed variable": "DC=!x!", "variable of PowerShell": "DC=$(calc)",
		"backtick": "DC=`calc`", "line feed": "DC=x\ncalc", "carriage return": "DC=x\rcalc", "escape sequence": "DC=x\x1b[2J", "reversed": "DC=x\u202ey",
		"backslash at the end": `DC=x\`, "another server": `\\evil.test\DC=x`, "slash": "/R,DC=x", "empty": "", "invalid UTF-8": "DC=\xff", "C1 control": "DC=\u009b2J",
		"too long": "DC=" + strings.Repeat("x", maxArgument),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := GrantCommand(odd, account, ReadObject); !strings.HasPrefix(got, `dsacls "DN" /I:T /G "`+account+`:LCRP" (`) {
				t.Errorf("DN: %q", got)
			}
			if got := GrantCommand(dn, odd, ReadObject); !strings.HasPrefix(got, `dsacls "`+dn+`" /I:T /G "ACCOUNT:LCRP" (`) {
				t.Errorf("account: %q", got)
			}
			if got := TakeOwnershipCommand(odd); got != `dsacls "DN" /takeOwnership` {
				t.Errorf("owner: %q", got)
			}
		})
	}
	if got, want := GrantProtectedCommand("DC=corp", account, ReadPermissions), `dsacls "CN=AdminSDHolder,CN=System,DC=corp" /G "`+account+`:RC" (`; !strings.HasPrefix(got, want) {
		t.Errorf("AdminSDHolder: %q, want %q", got, want)
	}
	if got := GrantProtectedCommand(`DC=x" & calc & "`, `"`, ReadAll); !strings.HasPrefix(got, `dsacls "DN" /G "ACCOUNT:LCRPRC" (`) {
		t.Errorf("AdminSDHolder: %q", got)
	}
	for _, odd := range []string{"Everyone:GA;;", "a:b", "a;b"} {
		if got := GrantCommand(dn, odd, ReadObject); !strings.Contains(got, `"ACCOUNT:LCRP"`) {
			t.Errorf("account %q: %q", odd, got)
		}
	}
}

// TestServerErrors tests that the error of many servers names some of them and their number.
func TestServerErrors(t *testing.T) {
	t.Parallel()
	list := make(serverErrors, 5000)
	for i := range list {
		list[i] = errNoResponse
	}
	text := list.Error()
	if strings.Count(text, errNoResponse.Error()) != maxServerTexts || !strings.HasSuffix(text, "; and 4980 more") {
		t.Errorf("%q", text)
	}
	if text := list[:2].Error(); text != "no response; no response" {
		t.Errorf("%q", text)
	}
}
