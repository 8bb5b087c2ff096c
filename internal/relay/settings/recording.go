package settings

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"iap/internal/config"
	"iap/internal/sealed"
	"iap/policy"
)

// RecordingConfig is about prompts and answers of grants that say record: true.
// They are encrypted to the recipients: the relay writes them and cannot read them.
type RecordingConfig struct {
	// Recipients are public keys of age, age1…, or files with some. Default none:
	// nothing can be recorded, and what must be is refused.
	Recipients []string `yaml:"recipients"`
	// Dir is their folder. Default: recordings in Data.
	Dir string `yaml:"dir"`
	// MaxBytes is how much of each request and of each answer is recorded; what is
	// longer is cut and says so. At most 64MiB, the default.
	MaxBytes config.Bytes `yaml:"max_bytes"`
	// Disk is how much all recordings may take. When they do, requests that must be
	// recorded are refused. Default 10GiB.
	Disk config.Bytes `yaml:"disk"`
	// Retain is for how long they are kept, by whole days in UTC. Default:
	// audit.retain. At least 24h.
	Retain config.Duration `yaml:"retain"`
}

const (
	maxRecorded      = 64 << 20
	defaultRecording = 10 << 30
)

// Enabled reports whether anything can be recorded.
func (c RecordingConfig) Enabled() bool { return len(c.Recipients) > 0 }

func (c *Config) resolveRecording() {
	r := &c.Audit.Recording
	if !r.Enabled() {
		return
	}
	setDefault(&r.Dir, filepath.Join(c.Data, "recordings"))
	setDefault(&r.MaxBytes, maxRecorded)
	setDefault(&r.Disk, defaultRecording)
	setDefault(&r.Retain, c.Audit.Retain)
	r.Dir = config.Resolve(c.file, r.Dir)
	for i, one := range r.Recipients {
		if !strings.HasPrefix(one, "age1") {
			r.Recipients[i] = config.Resolve(c.file, one)
		}
	}
}

func (c AuditConfig) validateRecording() error {
	r := c.Recording
	switch {
	case !r.Enabled() && (r.Dir != "" || r.MaxBytes != 0 || r.Disk != 0 || r.Retain != 0):
		return errors.New("audit.recording.recipients: missing; write the public key of whoever may read, age1…, made by age-keygen")
	case !r.Enabled():
		return nil
	case slices.Contains(r.Recipients, ""):
		return errors.New("audit.recording.recipients: one is empty")
	case r.Dir == c.Dir:
		return errors.New("audit.recording.dir: must be another folder than audit.dir")
	case r.MaxBytes < 1 || r.MaxBytes > maxRecorded:
		return errors.New("audit.recording.max_bytes: must be at most 64MiB")
	case r.Disk < 1<<20:
		return errors.New("audit.recording.disk: must be at least 1MiB")
	case r.Retain > 0 && time.Duration(r.Retain) < minRetain:
		return errors.New("audit.recording.retain: must be at least 24h")
	}
	return nil
}

// checkRecording reads the recipients, and sees to it that grants which demand a
// recording can have one.
func checkRecording(c RecordingConfig) Result {
	r := Result{Name: "recording", Detail: "to " + c.Dir}
	if _, err := sealed.ParseRecipients(c.Recipients); err != nil {
		r.Detail, r.Problem = "", "audit.recording.recipients: "+err.Error()
	}
	return r
}

// unrecordable names the first grant that demands what is not configured.
func (c *Config) unrecordable(grants []policy.Grant) string {
	i := slices.IndexFunc(grants, func(g policy.Grant) bool { return g.Record })
	if i < 0 || c.Audit.Recording.Enabled() {
		return ""
	}
	return fmt.Sprintf("%s:%d: grant %s says record: true, and relay.yaml has no audit.recording.recipients: its requests would be refused", c.Policy.Grants, grants[i].Line, grants[i].Name)
}
