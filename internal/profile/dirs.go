package profile

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
)

// Dirs are the two roots everything of a user lies under.
type Dirs struct {
	Config string // what the user chose
	State  string // what iapctl remembers, credentials included
}

// FindDirs resolves the roots from the environment; getenv is os.Getenv outside tests.
func FindDirs(getenv func(string) string) (Dirs, error) {
	if own := getenv("IAP_CONFIG_DIR"); own != "" {
		abs, err := filepath.Abs(own)
		if err != nil {
			return Dirs{}, fmt.Errorf("resolve IAP_CONFIG_DIR: %w", err)
		}
		return Dirs{Config: abs, State: filepath.Join(abs, "state")}, nil
	}
	home := getenv("HOME")
	if runtime.GOOS == "windows" {
		home = getenv("USERPROFILE")
	}
	d := Dirs{Config: fromXDG(getenv, "XDG_CONFIG_HOME"), State: fromXDG(getenv, "XDG_STATE_HOME")}
	if (d.Config == "" || d.State == "") && home == "" {
		return Dirs{}, errors.New("neither IAP_CONFIG_DIR nor a home directory is known")
	}
	if d.Config == "" {
		d.Config = systemConfig(getenv, home)
	}
	if d.State == "" {
		d.State = systemState(getenv, home)
	}
	return d, nil
}

// fromXDG reads one XDG variable; the specification says relative paths are to be ignored.
func fromXDG(getenv func(string) string, name string) string {
	if v := getenv(name); filepath.IsAbs(v) {
		return filepath.Join(v, "iap")
	}
	return ""
}

func systemConfig(getenv func(string) string, home string) string {
	if runtime.GOOS == "windows" {
		if v := getenv("APPDATA"); v != "" {
			return filepath.Join(v, "iap")
		}
	}
	return filepath.Join(home, ".config", "iap")
}

func systemState(getenv func(string) string, home string) string {
	if runtime.GOOS == "windows" {
		if v := getenv("LOCALAPPDATA"); v != "" {
			return filepath.Join(v, "iap")
		}
	}
	return filepath.Join(home, ".local", "state", "iap")
}

func (d Dirs) profiles() string             { return filepath.Join(d.Config, "profiles") }
func (d Dirs) settingsFile(n string) string { return filepath.Join(d.profiles(), n, "profile.yaml") }
func (d Dirs) currentFile() string          { return filepath.Join(d.Config, "current") }
func (d Dirs) stateDir(name string) string  { return filepath.Join(d.State, "profiles", name) }
func (d Dirs) stateFile(name string) string { return filepath.Join(d.stateDir(name), "state.json") }

func (d Dirs) credentials(name string) string { return filepath.Join(d.stateDir(name), "credentials") }

// writeFile replaces path in one step: a reader sees the old file or the new one, and a crash leaves one of them whole.
func writeFile(path string, data []byte) (err error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make directory %s: %w", dir, err)
	}
	tmp, err := os.CreateTemp(dir, ".write-*") // CreateTemp makes 0600 files
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer func() {
		if err != nil {
			_ = os.Remove(tmp.Name())
		}
	}()
	_, err = tmp.Write(data)
	if err == nil {
		err = tmp.Sync()
	}
	if closeErr := tmp.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
