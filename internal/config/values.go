package config

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"adconnector/internal/directory"
	"adconnector/internal/fault"
	"adconnector/internal/input"
	"adconnector/internal/loopback"
	"adconnector/internal/secret"
)

// The causes of faults. Some follow the refused value.
var (
	errMissing      = errors.New("missing")
	errNoLogin      = errors.New("no credentials")
	errPlaceholder  = errors.New("placeholder <...> not replaced")
	errDuplicate    = errors.New("the same key with different values")
	errRequiresHost = errors.New("requires ldap.host, without which connection and profile come from the gateway")
	errUnreadable   = errors.New("cannot be read")
	errNotAllowed   = input.ErrNotAllowed
	errNotUUID      = errors.New("is not a UUID")
	errNilUUID      = errors.New("is an example of the form, not a UUID of the platform")
	errNotURL       = errors.New("not a URL with a host")
	errCredentials  = errors.New("contains a user name or password, which have separate keys")
	errQuery        = errors.New("has a query or a fragment")
	errNotEncrypted = errors.New("http would send credentials in plain text")
	errScheme       = errors.New("scheme is neither https nor http")
	errNoScheme     = errors.New("no scheme")
	errTwoSchemes   = errors.New("has two schemes")
	errEndpoint     = errors.New("has the path of an endpoint, which is added to the base URL")
	errNotInHeader  = errors.New("cannot be sent in a header, as the login at the gateway requires")
	errColonInName  = errors.New("has a colon, which ends the user name in the proxy's login")
	errNotPath      = errors.New("is not a path")
	errNotFilter    = errors.New("is not an LDAP filter")
	errLine         = errors.New("line is not KEY=VALUE")
	errLineTooLong  = errors.New("line too long")
	errNotUTF8      = errors.New("line is not valid UTF-8")
	errNoKey        = errors.New("missing key")
	errKeySpace     = errors.New("white space in the key")
	errExport       = errors.New("begins with export or set")
	errSpace        = errors.New("white space around =")
	errFullWidth    = errors.New("full-width character instead of =")
	errQuotedKey    = errors.New("quotation mark at the key")
	errInvisible    = errors.New("invisible character at the key")
	errTwoSettings  = errors.New("contains another setting")
	errColon        = errors.New("colon instead of =")
	errUTF16        = errors.New("is UTF-16 text")
	errBinary       = errors.New("is not a text file")
	errNoPath       = errors.New("the path is empty")
	errLineEnds     = errors.New("has carriage returns as line ends")
)

// invalid returns the error for a value that is not allowed. The loader adds the key.
func invalid(cause error, allowed string) error {
	return fault.Operation{}.Failed(fault.Invalid, cause, "allowed: "+allowed)
}

// invalidText returns the error for a value that is not allowed, and quotes the value.
func invalidText(text string, cause error, allowed string) error {
	return invalid(fmt.Errorf("%s %w", input.Quote(text), cause), allowed)
}

func notAllowed(text, allowed string) error { return invalidText(text, errNotAllowed, allowed) }

// readableFile is the allowed value of a path.
const readableFile = "the path of a readable file"

// The probable mistakes in values that have an effect as they are.
var (
	hasPath      = input.NewMistake("has a path, which precedes the paths of all calls", "remove the path, unless a reverse proxy requires it")
	namesConsole = input.NewMistake("names a server of the platform that is not its gateway", "use the gateway of the platform, like https://gateway.qg1.apps.qualys.com")
	sameUUID     = input.NewMistake("is the UUID of another key too", "copy each UUID from its own page in the console")
	noEffect     = input.NewMistake("has no effect, because proxy.enabled is not set", "set proxy.enabled to true, or to false")
	hasTilde     = input.NewMistake("begins with ~, which is not expanded", "enter the absolute path")
	hasVariable  = input.NewMistake("contains a variable, which is not expanded", "enter the value of the variable")
	isRelative   = input.NewMistake("is a relative path, which depends on the working directory", "enter the absolute path")
	isList       = input.NewMistake("contains a comma", "repeat --env-file for each of several files")
	isFilePath   = input.NewMistake("is the path of a file", "set the same key with .file at its end to read the value from the file")
)

var consoleHost = regexp.MustCompile(`(?i)^(qualysguard|qualysapi)\.`)

// urlMistakes returns the probable mistakes in a valid base URL.
func urlMistakes(text string) (mistakes []error) {
	u, err := gatewayURL(text)
	if err != nil {
		return nil
	}
	if u.Path != "" {
		mistakes = append(mistakes, hasPath)
	}
	if consoleHost.MatchString(u.Hostname()) {
		mistakes = append(mistakes, namesConsole)
	}
	return mistakes
}

// variableInPath matches a variable of a shell or of Windows at the beginning of a name in a path.
var variableInPath = regexp.MustCompile(`(^|[/\\])(\$\{[^{}]*\}|\$[A-Za-z_]\w*|%\w+%)`)

// pathMistakes returns the probable mistakes in a path.
func pathMistakes(text string) []error {
	mistakes := input.Mistakes(text)
	if strings.HasPrefix(text, "~") {
		mistakes = append(mistakes, hasTilde)
	}
	if variableInPath.MatchString(text) && !slices.Contains(mistakes, error(input.Variable)) {
		mistakes = append(mistakes, hasVariable)
	}
	return mistakes
}

// dirMistakes returns the probable mistakes in the path of a directory.
func dirMistakes(text string) []error {
	mistakes := pathMistakes(text)
	if len(mistakes) == 0 && !filepath.IsAbs(text) {
		mistakes = append(mistakes, isRelative)
	}
	return mistakes
}

// unreadable returns the error of a file that cannot be read, with the probable mistakes in its
// path. name is the file in the error. It does not contain the path if that could be a secret.
func unreadable(name, path string, err error, mistakes ...error) error {
	if path == "" {
		return invalid(errNoPath, readableFile)
	}
	if name != "" {
		name += " "
	}
	cause, allowed := fmt.Errorf("%s%w: %w", name, errUnreadable, unwrapPathError(err)), readableFile
	if mistakes = append(pathMistakes(path), mistakes...); len(mistakes) > 0 {
		cause = fmt.Errorf("%w (the path %w)", cause, input.Join(mistakes))
		allowed += "; " + input.Remedy(mistakes)
	}
	return invalid(cause, allowed)
}

// secretMistakes returns the probable mistakes in a secret.
func secretMistakes(text string) []error {
	mistakes := input.Mistakes(text)
	if filepath.IsAbs(text) {
		if info, err := os.Stat(text); err == nil && !info.IsDir() {
			mistakes = append(mistakes, isFilePath)
		}
	}
	return mistakes
}

func verbatim(text string) (string, error) { return text, nil }

func parseSecret(text string) (secret.Text, error) { return secret.New(text), nil }

func between(low, high int) parser[int] {
	return func(text string) (int, error) {
		n, err := strconv.Atoi(strings.TrimSpace(text))
		if err != nil || n < low || n > high {
			return 0, notAllowed(text, fmt.Sprintf("a number from %d to %d", low, high))
		}
		return n, nil
	}
}

func durationBetween(low, high time.Duration) parser[time.Duration] {
	return func(text string) (time.Duration, error) {
		d, err := time.ParseDuration(strings.TrimSpace(text))
		if err != nil || d < low || d > high {
			return 0, notAllowed(text, fmt.Sprintf("a duration like 30s, 5m or 24h, from %s to %s", brief(low), brief(high)))
		}
		return d, nil
	}
}

// brief returns a duration without the units that are 0 at its end.
func brief(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// listenAddress parses an address to listen on; "off" means none.
func listenAddress(text string) (string, error) {
	text = strings.TrimSpace(text)
	if strings.EqualFold(text, "off") {
		return "", nil
	}
	host, port, err := net.SplitHostPort(text)
	if host != "" && err == nil {
		_, err = input.ParseHost(host)
	}
	if _, badPort := strconv.ParseUint(port, 10, 16); err != nil || badPort != nil {
		return "", notAllowed(text, "host:port like 127.0.0.1:8080, or empty for none")
	}
	return text, nil
}

// hostNames parses a list of host names without ports. Names with and without a dot at the end
// are the same.
func hostNames(text string) ([]string, error) {
	var names []string
	for item := range strings.SplitSeq(text, ",") {
		name, err := input.ParseHost(item)
		if err != nil {
			return nil, invalidInput(err, "; several separated by commas")
		}
		names = append(names, strings.TrimSuffix(name, "."))
	}
	return names, nil
}

func boolean(text string) (bool, error) {
	switch strings.ToLower(strings.TrimSpace(text)) {
	case "true", "1", "yes", "on":
		return true, nil
	case "false", "0", "no", "off":
		return false, nil
	}
	return false, notAllowed(text, "true or false")
}

// oneOf parses a choice of values, whose names are their texts.
func oneOf[T ~string](values ...T) parser[T] {
	choices := make([]input.Choice[T], len(values))
	for n, value := range values {
		choices[n] = input.Choice[T]{Value: value, Names: []string{string(value)}}
	}
	return choiceOf(choices)
}

func choiceOf[T any](choices []input.Choice[T]) parser[T] {
	return func(text string) (T, error) {
		choice, err := input.Choose(choices, text)
		return choice, invalidInput(err, "")
	}
}

// invalidInput returns the error of a package that parses entered values; nil for nil.
func invalidInput(err error, addition string) error {
	if refused, is := errors.AsType[*input.ValueError](err); is {
		return invalid(refused, refused.Allowed+addition)
	}
	return err
}

var uuidForm = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

// uuidDigits matches a UUID in another form, such as in braces.
var uuidDigits = regexp.MustCompile(`^[^0-9a-z]*(?:urn:uuid:)?([0-9a-f]{8})[-‐-―]?([0-9a-f]{4})[-‐-―]?([0-9a-f]{4})[-‐-―]?([0-9a-f]{4})[-‐-―]?([0-9a-f]{12})[^0-9a-z]*$`)

func uuid(text string) (string, error) {
	lower := strings.ToLower(strings.TrimSpace(text))
	if !uuidForm.MatchString(lower) {
		allowed := "the form 00000000-0000-0000-0000-000000000000"
		if m := uuidDigits.FindStringSubmatch(lower); m != nil {
			allowed += ", here " + strings.Join(m[1:], "-")
		}
		return "", invalid(fmt.Errorf("%s %w", quoteASCII(text), errNotUUID), allowed)
	}
	if strings.Trim(lower, "0-") == "" {
		return "", invalidText(text, errNilUUID, "the UUID in the console")
	}
	return lower, nil
}

// quoteASCII quotes a refused value like input.Quote, and escapes characters that look like ASCII
// ones, such as dashes.
func quoteASCII(text string) string {
	if input.HidesValue(text) {
		return input.Quote(text)
	}
	return fmt.Sprintf("%+.80q", text)
}

// gatewayURL parses a base URL without a query.
func gatewayURL(text string) (*url.URL, error) {
	if strings.ContainsAny(text, "?#") {
		return nil, invalid(errQuery, "scheme, host, port and path")
	}
	u, err := httpsURL(strings.TrimRight(strings.TrimSpace(text), "/"))
	if err == nil && endpoint.MatchString(u.Path) {
		return nil, invalid(errEndpoint, "https://HOST")
	}
	return u, err
}

var (
	schemes  = regexp.MustCompile(`(?i)^[a-z]+:/*[a-z]+:/`)
	endpoint = regexp.MustCompile(`^/+(auth|rest)(/|$)`) // of the gateway
)

// httpsURL parses a URL. Its errors do not quote it, because it could contain credentials.
func httpsURL(text string) (*url.URL, error) {
	const allowed = "https://HOST/..., or http:// on loopback"
	text = strings.TrimSpace(text)
	if schemes.MatchString(text) {
		return nil, invalid(errTwoSchemes, allowed)
	}
	if _, err := input.ParseHost(text); err == nil {
		return nil, invalid(fmt.Errorf("%w: %w", errNotURL, errNoScheme), allowed)
	}
	u, err := url.Parse(text)
	if err != nil || u.Hostname() == "" {
		return nil, invalid(errNotURL, allowed)
	}
	if port := u.Port(); port != "" {
		if _, err := between(1, 65535)(port); err != nil {
			return nil, fmt.Errorf("port %w", err)
		}
	}
	switch {
	case u.User != nil:
		return nil, invalid(errCredentials, allowed)
	case u.Fragment != "":
		return nil, invalid(errQuery, allowed)
	case u.Scheme != "https" && u.Scheme != "http":
		return nil, invalid(errScheme, allowed)
	}
	if _, err := input.ParseHost(u.Hostname()); err != nil {
		return nil, invalid(errNotURL, allowed)
	}
	if u.Scheme == "http" && !loopback.Contains(u.Hostname()) {
		return nil, invalid(errNotEncrypted, allowed)
	}
	return u, nil
}

func urlPath(text string) (string, error) {
	if !strings.HasPrefix(text, "/") || strings.HasPrefix(text, "//") || strings.ContainsAny(text, "?#\\ \t") {
		return "", invalidText(text, errNotPath, "/like/this, without a host, query or fragment")
	}
	return text, nil
}

func hosts(text string) ([]string, error) {
	parse := hostOf("ldap")
	var all []string
	for item := range strings.SplitSeq(text, ",") {
		host, err := parse(item)
		if err != nil {
			return nil, err
		}
		all = append(all, host)
	}
	return all, nil
}

// hostOf parses the host of <prefix>.host.
func hostOf(prefix string) parser[string] {
	return func(text string) (string, error) {
		host, err := input.ParseHost(text)
		addition := ""
		if errors.Is(err, input.ErrHostPort) {
			addition = "; set " + prefix + ".port"
		}
		return host, invalidInput(err, addition)
	}
}

func distinguishedName(text string) (string, error) {
	return text, invalidInput(directory.CheckBase(text), "")
}

// proxyUser parses a user name of the proxy, which cannot contain a colon (RFC 7617 2).
func proxyUser(text string) (string, error) {
	if strings.Contains(text, ":") {
		return "", invalid(errColonInName, "a user name without a colon; its password has its own key, proxy.password")
	}
	return text, nil
}

func filter(text string) (string, error) {
	err := directory.CheckFilter(text)
	if err == nil {
		return text, nil
	}
	allowed := "a filter in parentheses, like (department=Sales)"
	if mistake := directory.FilterMistake(text); mistake != nil { // clearer than the error of a parser
		err = fmt.Errorf("it %w", mistake)
		allowed += "; " + mistake.Remedy()
	}
	return "", invalid(fmt.Errorf("%s %w: %w", input.Quote(text), errNotFilter, err), allowed)
}
