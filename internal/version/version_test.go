package version

import (
	"encoding/json"
	"runtime"
	"strings"
	"testing"
)

func TestEveryBuildSaysWhatItIs(t *testing.T) {
	v := Current()
	if v.Version == "" || v.Go != runtime.Version() || v.Platform != runtime.GOOS+"/"+runtime.GOARCH {
		t.Errorf("%+v", v)
	}
	if String() != v.Version || strings.ContainsAny(String(), " \n") {
		t.Errorf("%q", String())
	}
	data, err := json.Marshal(v)
	if err != nil || !strings.Contains(string(data), `"version":`) || !strings.Contains(string(data), `"platform":`) {
		t.Errorf("%s, %v", data, err)
	}
}
