package check

import "regexp"

// remedyOf finds where an error begins to say what to do: the adapters' errors say
// what was tried, on what, and what came back, and end in an order. A verb with a path
// behind it is no order but what was tried, in the words of the operating system.
var remedyOf = regexp.MustCompile(`(?s)(?:: |; )((?:check|correct|set|use|give|grant|have|renew|make|choose|free|enable|extend|unlock|remove|change|lower|` +
	`stop|restart|connect to a domain|LDAPS is usually|the server must offer|look)\b(?:| [^/].*))$`)

// split takes an error apart into what was found and the remedy; "" where it has none.
func split(err error) (found, remedy string) {
	text := err.Error()
	at := remedyOf.FindStringSubmatchIndex(text)
	if at == nil {
		return text, ""
	}
	return text[:at[0]], text[at[2]:]
}
