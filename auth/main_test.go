package auth

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(refreshChildDir); dir != "" {
		os.Exit(refreshChild(dir))
	}
	goleak.VerifyTestMain(m)
}
