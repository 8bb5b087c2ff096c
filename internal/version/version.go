// Package version tells which build of the product is running. It exists so
// that the three binaries, their logs and their handshakes say the same.
package version

import (
	"runtime"
	"runtime/debug"
)

// number is set by the linker (-X iap/internal/version.number=…).
var number string

// Info describes a build.
type Info struct {
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

// Current returns what is known of the running binary.
func Current() Info {
	info := Info{Version: number, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	build, ok := debug.ReadBuildInfo()
	if ok {
		for _, s := range build.Settings {
			if s.Key == "vcs.revision" {
				info.Revision = s.Value
			}
		}
	}
	if info.Version == "" {
		info.Version = "development"
	}
	return info
}

// String is the short form that handshakes and logs carry.
func String() string { return Current().Version }
