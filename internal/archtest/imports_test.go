package archtest

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "iap"

// pkg is what `go list -json` says of a package of ours. Imports leaves test
// files out: tests may use what they need.
type pkg struct {
	ImportPath string
	Dir        string
	Name       string
	Doc        string
	Imports    []string
	Deps       []string
	GoFiles    []string
}

// layers lists, for packages with a rule of their own, which packages of the
// product they may import; below that, anything goes.
var layers = []struct {
	pkg    string // with everything below it
	may    []string
	reason string
}{
	{"tunnel", nil, "the tunnel is a domain of its own: identity and policy reach it as funcs and bytes"},
	{"auth", nil, "identity is a domain of its own: it knows neither streams nor rules"},
	{"policy", []string{"policy"}, "policy is a domain of its own: it decides on plain structs"},
	{"internal/modelapi", nil, "knowledge of the model servers' APIs, without I/O; relay, agent and CLI all use it"},
	{"internal/guard", []string{"internal/modelapi"}, "the guard is built from funcs, so that an agent can mount the very same handler"},
	{"internal/fleet", []string{"internal/modelapi", "tunnel"}, "which agent is next depends on what agents say, not on how a relay hears it"},
	{"internal/relay/settings", []string{"auth", "internal/audit/sink", "internal/cluster", "internal/config", "internal/screen", "internal/sealed", "internal/state", "internal/usage", "policy", "tunnel"}, "a file is checked where no relay runs"},
	{"internal/config", nil, "everybody reads configuration: it can know nobody"},
	{"internal/state", nil, "a store knows nothing of what it stores"},
	{"internal/cluster", []string{"internal/state"}, "relays find each other in the state: what they tell each other is others' business"},
	{"internal/limit", []string{"internal/state"}, "counting knows amounts and windows: whose they are and what they buy is others' business"},
	{"internal/usage", []string{"internal/state"}, "statistics know names and sums: who may see them is others' business"},
	{"internal/audit", []string{"internal/relaykey", "internal/sealed"}, "a log knows nothing of who writes it; a checkpoint is believed by the statements of keys"},
	{"internal/replay", []string{"internal/audit", "policy"}, "it decides on what the log says and on nothing a relay knows"},
	{"internal/backup", []string{"internal/audit", "internal/state"}, "it copies files: what a relay makes of them is the relay's business"},
	{"internal/sealed", nil, "keys and files: it knows nothing of what is in them"},
	{"internal/relaykey", nil, "statements of keys: who keeps and who shows them is others' business"},
	{"internal/keyfile", []string{"auth"}, "one key on one disk: it knows neither relay nor agent"},
	{"internal/version", nil, "everybody tells the version"},
	{"internal/plaintext", nil, "everybody prints"},
	{"internal/screen", nil, "layout knows no subject"},
	{"internal/console", []string{"internal/admin", "internal/audit", "internal/relaykey", "internal/plaintext", "internal/screen", "policy"}, "the operator's commands are typed at both ends: they know the API, neither relay nor client"},
	{"internal/dev", []string{"internal/modelapi"}, "the development provider and model stand in for foreign servers: they share nothing with us"},
	{"internal/profile", []string{"internal/config", "internal/relaykey"}, "what iapctl remembers between runs"},
	{"internal/service", nil, "it runs any program of a user's: it knows nothing of ours"},
	{"internal/notify", nil, "a courtesy to whoever sits before the screen: it knows nothing of ours"},
	{"internal/configure", nil, "settings of other people's tools are text: it knows nothing of ours"},
}

// owners names the only package (with everything below it) that may import a
// heavy dependency.
var owners = []struct{ dependency, owner, reason string }{
	{"github.com/hashicorp/yamux", "tunnel", "its traps are closed in one place"},
	{"golang.org/x/oauth2", "auth", "tokens are handled in one place"},
	{"github.com/coreos/go-oidc/v3", "auth", "what it leaves unchecked is checked in one place"},
	{"github.com/zalando/go-keyring", "auth", "secrets at rest have one keeper"},
	{"github.com/godbus/dbus", "internal/notify", "what reaches the session bus, and which kinds of it, is decided in one place"},
	{"github.com/pkg/browser", "auth", "which URLs may be opened is decided in one place"},
	{"github.com/open-policy-agent/opa", "policy/rego", "21 MB: the relay alone links it"},
	{"modernc.org/sqlite", "internal/state", "one contract, one conformance suite"},
	{"github.com/jackc/pgx/v5", "internal/state", "one contract, one conformance suite"},
	{"github.com/zitadel/oidc/v3", "internal/dev", "a provider for development alone"},
	{"github.com/charmbracelet/lipgloss", "cmd/iapctl", "one renderer"},
	{"golang.org/x/mod", "internal/audit", "what a tree and a checkpoint prove is decided in one place"},
	{"filippo.io/age", "internal/sealed", "what is sealed, and to which keys, is decided in one place"},
	{"github.com/expr-lang/expr", "internal/audit/filter", "one language of filters, and one place that bounds it"},
	{"github.com/klauspost/compress", "internal/modelapi", "what unfolds is bounded in one place"},
}

// unlinked lists what a binary must not contain, directly or not.
var unlinked = []struct{ binary, dependency, reason string }{
	{"cmd/iapctl", "github.com/open-policy-agent/opa", "the CLI prints, it never decides"},
	{"cmd/iapctl", "modernc.org/sqlite", "the CLI keeps no database"},
	{"cmd/iapctl", "github.com/jackc/pgx/v5", "the CLI keeps no database"},
	{"cmd/iapctl", "iap/internal/dev", "development parts belong to iap-relay dev"},
	{"cmd/iap-agent", "github.com/open-policy-agent/opa", "the agent decides from its own static list"},
	{"cmd/iap-agent", "modernc.org/sqlite", "the agent keeps no database"},
	{"cmd/iap-agent", "github.com/jackc/pgx/v5", "the agent keeps no database"},
	{"cmd/iap-agent", "iap/internal/dev", "development parts belong to iap-relay dev"},
}

func TestPackagesKeepToTheirLayer(t *testing.T) {
	for _, p := range packages(t) {
		for _, layer := range layers {
			if !below(p.ImportPath, layer.pkg) {
				continue
			}
			for _, imported := range p.Imports {
				if !strings.HasPrefix(imported, module+"/") {
					continue
				}
				allowed := slices.ContainsFunc(layer.may, func(m string) bool { return below(imported, m) })
				if !allowed && !below(imported, layer.pkg) {
					t.Errorf("%s imports %s: %s", p.ImportPath, imported, layer.reason)
				}
			}
		}
	}
}

func TestEachHeavyDependencyHasOneOwner(t *testing.T) {
	for _, p := range packages(t) {
		for _, rule := range owners {
			for _, imported := range p.Imports {
				if (imported == rule.dependency || strings.HasPrefix(imported, rule.dependency+"/")) && !below(p.ImportPath, rule.owner) {
					t.Errorf("%s imports %s, which belongs to %s: %s", p.ImportPath, imported, rule.owner, rule.reason)
				}
			}
		}
	}
}

func TestBinariesLeaveOutWhatTheyDoNotNeed(t *testing.T) {
	all := packages(t)
	for _, rule := range unlinked {
		i := slices.IndexFunc(all, func(p pkg) bool { return p.ImportPath == module+"/"+rule.binary })
		if i < 0 {
			t.Errorf("no package %s", rule.binary)
			continue
		}
		for _, dep := range all[i].Deps {
			if dep == rule.dependency || strings.HasPrefix(dep, rule.dependency+"/") {
				t.Errorf("%s links %s: %s", rule.binary, dep, rule.reason)
			}
		}
	}
}

func TestOnlyTheRelayCommandImportsDevelopmentParts(t *testing.T) {
	for _, p := range packages(t) {
		allowed := below(p.ImportPath, "cmd/iap-relay") || below(p.ImportPath, "internal/dev") || below(p.ImportPath, "internal/bench")
		if slices.Contains(p.Imports, module+"/internal/dev") && !allowed {
			t.Errorf("%s imports internal/dev: only iap-relay dev, the benchmark and tests may", p.ImportPath)
		}
	}
}

func TestPackagesAreNamedAndDocumented(t *testing.T) {
	for _, p := range packages(t) {
		if slices.Contains([]string{"util", "utils", "common", "helper", "helpers", "misc"}, p.Name) {
			t.Errorf("%s: a package is named after what it is", p.ImportPath)
		}
		if len(p.GoFiles) > 0 && p.Doc == "" {
			t.Errorf("%s has no package comment", p.ImportPath)
		}
	}
}

// below reports whether the package path is room or lies in it. Paths of ours
// may be given with or without the module's name.
func below(path, room string) bool {
	path, room = strings.TrimPrefix(path, module+"/"), strings.TrimPrefix(room, module+"/")
	return path == room || strings.HasPrefix(path, room+"/")
}

func packages(t *testing.T) []pkg {
	t.Helper()
	out, err := exec.Command("go", "list", "-json=ImportPath,Dir,Name,Doc,Imports,Deps,GoFiles", module+"/...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []pkg
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("read go list: %v", err)
		}
		all = append(all, p)
	}
	if len(all) < 10 {
		t.Fatalf("go list names %d packages: the rules would check nothing", len(all))
	}
	return all
}
