package sink

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Bounds of a secret, as Standard Webhooks asks.
const (
	minSecret = 24
	maxSecret = 64

	secretPrefix = "whsec_"
)

// webhook posts batches of lines, signed in the form of Standard Webhooks 1.0: webhook-id, webhook-timestamp and
// webhook-signature, the HMAC-SHA256 of "id.timestamp.body". The file of secrets may hold several, a line each: then each
// signs, so that a receiver can change its own in between.
type webhook struct {
	*poster
	secretFile string
	origin     string
}

func openWebhook(o Options, c Config) (target, error) {
	if _, err := readSecrets(c.SecretFile); err != nil {
		return nil, err
	}
	p, err := newPoster(o, c)
	return &webhook{poster: p, secretFile: c.SecretFile, origin: o.Origin}, err
}

func (w *webhook) send(ctx context.Context, b batch) (receipt, error) {
	secrets, err := readSecrets(w.secretFile)
	if err != nil {
		return receipt{}, err
	}
	var body []byte
	for _, r := range b.records {
		body = append(append(body, r.line...), '\n')
	}
	at := w.now()
	_, err = w.post(ctx, body, http.Header{
		"Content-Type":      {"application/x-ndjson"},
		"User-Agent":        {"iap-relay"},
		"Webhook-Id":        {b.id},
		"Webhook-Timestamp": {strconv.FormatInt(at.Unix(), 10)},
		"Webhook-Signature": {sign(secrets, b.id, at, body)},
		"Iap-Audit-Log":     {w.origin},
	})
	return receipt{}, err
}

func sign(secrets [][]byte, id string, at time.Time, body []byte) string {
	var all []string
	for _, secret := range secrets {
		h := hmac.New(sha256.New, secret)
		fmt.Fprintf(h, "%s.%d.", id, at.Unix())
		h.Write(body)
		all = append(all, "v1,"+base64.StdEncoding.EncodeToString(h.Sum(nil)))
	}
	return strings.Join(all, " ")
}

// readSecrets reads what batches are signed with, each time anew.
func readSecrets(path string) ([][]byte, error) {
	lines, err := secretLines(path)
	if err != nil {
		return nil, fmt.Errorf("secret_file: %w", err)
	}
	var secrets [][]byte
	for _, line := range lines {
		secret, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(line, secretPrefix))
		if err != nil || len(secret) < minSecret || len(secret) > maxSecret {
			return nil, fmt.Errorf("secret_file: %s holds no secret: whsec_ and %d to %d bytes in base64, such as of: openssl rand -base64 32", path, minSecret, maxSecret)
		}
		secrets = append(secrets, secret)
	}
	if len(secrets) == 0 {
		return nil, fmt.Errorf("secret_file: %s is empty", path)
	}
	return secrets, nil
}
