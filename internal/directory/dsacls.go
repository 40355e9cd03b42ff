package directory

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// People copy the commands of a remedy to a shell, often as an administrator of the domain. The names
// in them come from servers. So a command contains a name only if cmd.exe and PowerShell do not interpret
// it between double quotes, and dsacls reads it as one DN or one account. Otherwise the command contains a
// placeholder. All dsacls commands come from this file.

const (
	placeholderDN = "DN"
	// UnknownAccount stands in a command for an account whose name is not known.
	UnknownAccount = "ACCOUNT"
)

// quotableMarks are the characters other than letters, digits and marks that have no meaning between
// double quotes. Those with a meaning are a percent sign and an exclamation mark (cmd.exe), a dollar
// sign and a backtick (PowerShell).
const quotableMarks = " #&'()*+,-./:;<=>?@[\\]^_{|}~"

// likeQuotes are letters and marks that Windows maps to a quotation mark when it converts a text to a
// code page.
const likeQuotes = "\u02ba\u02ee\u030b\u030e"

// maxArgument limits a name in a command, in bytes. A command of cmd.exe has at most 8,191 characters.
const maxArgument = 2 << 10

// isQuotable reports whether no shell interprets a text between double quotes. The text must begin
// with a letter, a digit or an angle bracket: dsacls takes \\server\DN as a DN on another server, to
// which it would log in.
func isQuotable(text string) bool {
	first, _ := utf8.DecodeRuneInString(text)
	if len(text) > maxArgument || !unicode.IsLetter(first) && !unicode.IsDigit(first) && first != '<' || strings.HasSuffix(text, `\`) {
		return false
	}
	return !strings.ContainsFunc(text, func(r rune) bool {
		return r == utf8.RuneError || strings.ContainsRune(likeQuotes, r) ||
			!unicode.In(r, unicode.L, unicode.M, unicode.Nd) && !strings.ContainsRune(quotableMarks, r)
	})
}

// Rights are access rights in the notation of dsacls.
type Rights string

// The rights that the remedies grant.
const (
	ReadObject      Rights = "LCRP"   // List Contents and Read Property
	ReadPermissions Rights = "RC"     // the security descriptor
	ReadAll         Rights = "LCRPRC" // both
)

// GrantCommand returns the dsacls command that grants an account rights on an object and all below it.
// A name that a shell could interpret is replaced by a placeholder, which the text explains.
func GrantCommand(dn, account string, rights Rights) string {
	return grantCommand(dn, " /I:T", account, rights)
}

// GrantProtectedCommand returns the dsacls command that grants an account rights on AdminSDHolder of a
// domain, and with it on the objects that it protects. They inherit nothing from the domain. It replaces
// names like [GrantCommand].
func GrantProtectedCommand(domain, account string, rights Rights) string {
	return grantCommand(AdminSDHolder(domain), "", account, rights) + " (effective within an hour on accounts and groups that it protects)"
}

func grantCommand(dn, inheritance, account string, rights Rights) string {
	// A colon separates the account from the rights, and a semicolon the rights from the type.
	unsafeAccount := !isQuotable(account) || strings.ContainsAny(account, ":;")
	if unsafeAccount {
		account = UnknownAccount
	}
	shown := shownDN(dn)
	command := fmt.Sprintf(`dsacls "%s"%s /G "%s:%s"`, shown, inheritance, account, rights)
	var notes []string
	if shown != dn {
		notes = append(notes, "DN is the object's DN")
	}
	if unsafeAccount {
		notes = append(notes, "ACCOUNT is the account's name")
	}
	if len(notes) > 0 {
		command += " (" + strings.Join(notes, ", ") + ", which must be quoted for the shell)"
	}
	return command
}

// TakeOwnershipCommand returns the dsacls command that makes an administrator the owner of an object.
func TakeOwnershipCommand(dn string) string {
	return fmt.Sprintf(`dsacls "%s" /takeOwnership`, shownDN(dn))
}

// shownDN returns a DN for a command, or the placeholder.
func shownDN(dn string) string {
	if isQuotable(dn) {
		return dn
	}
	return placeholderDN
}
