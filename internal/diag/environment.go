package diag

import (
	"net/url"
	"slices"
	"strings"

	"iap/internal/plaintext"
)

// KnowEnvironment tells the redactor what in the variables may be a secret.
func (r *Redactor) KnowEnvironment(environ []string) {
	for _, kv := range environ {
		name, value, _ := strings.Cut(kv, "=")
		if secretVariable(name) {
			r.Know(value)
		}
		if strings.HasSuffix(strings.ToUpper(name), "_PROXY") {
			r.Know(proxySecrets(value)...)
		}
	}
}

// AddEnvironment puts the variables in that our programs and their libraries read. Of commands and tokens it says only that
// they are set.
func (b *Bundle) AddEnvironment(environ []string) {
	var lines []string
	for _, kv := range environ {
		name, value, _ := strings.Cut(kv, "=")
		upper := strings.ToUpper(name)
		ours := strings.HasPrefix(upper, "IAP_") || strings.HasSuffix(upper, "_PROXY")
		plain := slices.Contains([]string{"NO_COLOR", "TERM", "LANG", "LC_ALL", "XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_RUNTIME_DIR", "SSL_CERT_FILE", "SSL_CERT_DIR"}, upper)
		switch {
		case !ours && !plain:
			continue
		case strings.HasSuffix(upper, "_COMMAND") || secretVariable(name):
			value = "(set)"
		case strings.HasSuffix(upper, "_PROXY") && upper != "NO_PROXY":
			value = withoutUser(value)
		}
		lines = append(lines, name+"="+plaintext.Clean(value))
	}
	slices.Sort(lines)
	b.Add("environment.txt", "variables that are read", []byte(strings.Join(append(lines, ""), "\n")))
}

// proxySecrets are user and password of a proxy's address, as they are written and as they are meant.
func proxySecrets(address string) []string {
	at := strings.LastIndexByte(address, '@')
	if at < 0 {
		return nil
	}
	user := address[:at]
	if _, rest, ok := strings.Cut(user, "://"); ok {
		user = rest
	}
	_, password, _ := strings.Cut(user, ":")
	all := []string{user, password}
	if meant, err := url.PathUnescape(password); err == nil {
		all = append(all, meant)
	}
	return all
}

// secretVariable reports whether a variable's value may be a secret as a whole.
func secretVariable(name string) bool {
	name = strings.ToUpper(name)
	for _, part := range []string{"TOKEN", "SECRET", "PASSWORD", "PASSWD", "API_KEY", "APIKEY", "ACCESS_KEY", "PRIVATE_KEY", "LOCAL_KEY", "CREDENTIAL"} {
		if strings.Contains(name, part) && !strings.HasSuffix(name, "_FILE") && !strings.HasSuffix(name, "_COMMAND") {
			return true
		}
	}
	return false
}

// withoutUser leaves user and password out of a proxy's address, with or without a scheme.
func withoutUser(address string) string {
	if at := strings.LastIndexByte(address, '@'); at >= 0 {
		scheme, _, ok := strings.Cut(address, "://")
		if ok && len(scheme) < at {
			return scheme + "://(user)@" + address[at+1:]
		}
		return "(user)@" + address[at+1:]
	}
	return address
}
