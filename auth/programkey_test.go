package auth

import (
	"fmt"
	"strings"
	"testing"
)

func TestProgramKeyHasOneSpelling(t *testing.T) {
	k := NewProgramKey()
	text := k.Text()
	got, err := ParseProgramKey(text)
	if err != nil || got != k {
		t.Fatalf("%v %v", got, err)
	}
	for name, other := range map[string]string{
		"upper case": strings.ToUpper(text), "space before": " " + text, "newline behind": text + "\n", "cut": text[:len(text)-1],
		"longer": text + "a", "no prefix": strings.TrimPrefix(text, ProgramKeyPrefix), "other prefix": "iapx_" + text[5:], "empty": "", "prefix alone": ProgramKeyPrefix,
	} {
		if _, err := ParseProgramKey(other); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	for i := range text { // each single typo is found
		for _, c := range []byte("a7_0") {
			typo := []byte(text)
			if typo[i] == c {
				continue
			}
			typo[i] = c
			if _, err := ParseProgramKey(string(typo)); err == nil {
				t.Errorf("a typo at %d: taken", i)
			}
		}
	}
}

func TestProgramKeyDoesNotPrintItself(t *testing.T) {
	k := NewProgramKey()
	secret := k.Text()[len(ProgramKeyPrefix)+programKeyIDLen+1:]
	for _, text := range []string{fmt.Sprint(k), fmt.Sprintf("%v", &k), fmt.Sprintf("%+v", struct{ Key ProgramKey }{k})} {
		if strings.Contains(text, secret[:20]) || !strings.Contains(text, k.ID) {
			t.Errorf("printed as %s", text)
		}
	}
}

func TestProgramKeysDiffer(t *testing.T) {
	a, b := NewProgramKey(), NewProgramKey()
	if a.ID == b.ID || a.Secret == b.Secret || a.Hash() == b.Hash() {
		t.Errorf("%v %v", a, b)
	}
}

func FuzzParseProgramKey(f *testing.F) {
	f.Add(NewProgramKey().Text())
	f.Add("iapk_aaaaaaaa_")
	f.Fuzz(func(t *testing.T, text string) {
		k, err := ParseProgramKey(text)
		if err == nil && k.Text() != text {
			t.Errorf("%q reads as %q", text, k.Text())
		}
		if err != nil && text != "" && len(text) > 20 && strings.Contains(err.Error(), text) {
			t.Error("the error quotes the key")
		}
	})
}
