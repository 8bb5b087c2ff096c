package main

import (
	"os"
	"path/filepath"
	"testing"
)

// TestSettingsAreReplacedWhereTheyLieAndNowhereElse has links where somebody else could have put them.
func TestSettingsAreReplacedWhereTheyLieAndNowhereElse(t *testing.T) {
	dir := t.TempDir()
	link, file, precious := filepath.Join(dir, "link.json"), filepath.Join(dir, "file.json"), filepath.Join(dir, "precious")
	const before, after, other = "{}\n", `{"key":"secret"}` + "\n", "precious\n"
	write := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(file, before)
	write(precious, other)
	for _, err := range []error{os.Chmod(file, 0o644), os.Symlink(file, link), os.Symlink(precious, file+backupSuffix)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	_, mode, err := readSettings(link)
	if err != nil {
		t.Fatal(err)
	}
	backup, err := writeSettings(link, before, after, settingsMode(mode, true))
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{file: after, backup: before, precious: other} {
		text, err := os.ReadFile(path)
		info, statErr := os.Lstat(path)
		if err != nil || statErr != nil || string(text) != want || !info.Mode().IsRegular() || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %q %v, %v %v", path, text, info.Mode(), err, statErr)
		}
	}
	if info, err := os.Lstat(link); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link is none any more: %v %v", info, err)
	}
	if settingsMode(mode, false) != 0o644 {
		t.Error("a file without a key is closed to its readers")
	}
	if _, err := writeSettings(link, before, after, mode); err == nil {
		t.Error("what was written meanwhile is lost")
	}
}
