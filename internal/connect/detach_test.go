package connect

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestHelperProcess is no test: it is what Background starts in the tests below.
func TestHelperProcess(t *testing.T) {
	switch os.Getenv("IAP_TEST_BACKGROUND") {
	case "":
		t.Skip("only for other tests")
	case "ready":
		fmt.Println(`{"ready":true}`)
	case "fails":
		fmt.Fprintln(os.Stderr, "narration")
		fmt.Fprintln(os.Stderr, `{"error":1}`)
		os.Exit(4)
	}
	os.Exit(0)
}

func background(t *testing.T, mode string) Background {
	t.Helper()
	return Background{
		Program: os.Args[0], Args: []string{"-test.run=^TestHelperProcess$"},
		Env: append(os.Environ(), "IAP_TEST_BACKGROUND="+mode), LogFile: filepath.Join(t.TempDir(), "log"),
	}
}

func TestBackgroundReportsOnceReady(t *testing.T) {
	report, err := background(t, "ready").Start(context.Background())
	if err != nil || report != `{"ready":true}` {
		t.Fatalf("%q, %v", report, err)
	}
}

func TestBackgroundThatFailsGivesStatusAndLog(t *testing.T) {
	_, err := background(t, "fails").Start(context.Background())
	var ended *BackgroundError
	if !errors.As(err, &ended) || ended.Status != 4 || !strings.HasSuffix(ended.Log, `{"error":1}`) {
		t.Fatalf("err = %#v", err)
	}
}
