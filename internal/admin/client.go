package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"
)

const (
	maxReplyBytes  = 4 << 20          // a list of thousands of agents fits
	requestTimeout = 15 * time.Second // the relay answers from memory and a local database
)

// Client calls the relay's own API over connections that open makes: streams
// of a session with service "api", or the admin socket.
type Client struct {
	http *http.Client
	base string
}

// NewClient returns a client that dials with open. Close it to drop idle
// connections.
func NewClient(open func(ctx context.Context) (net.Conn, error)) *Client {
	return &Client{
		base: "http://relay",
		http: &http.Client{
			Timeout: requestTimeout,
			Transport: &http.Transport{
				DialContext:         func(ctx context.Context, _, _ string) (net.Conn, error) { return open(ctx) },
				MaxIdleConnsPerHost: 1,
			},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

// Close drops idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Whoami tells who the relay takes the caller for.
func (c *Client) Whoami(ctx context.Context) (Whoami, error) {
	return get[Whoami](ctx, c, "/v1/whoami")
}

// Resources lists what the caller may reach.
func (c *Client) Resources(ctx context.Context) (ResourceList, error) {
	return get[ResourceList](ctx, c, "/v1/resources")
}

// Status tells about the caller's sessions and the relay.
func (c *Client) Status(ctx context.Context) (Status, error) {
	return get[Status](ctx, c, "/v1/status")
}

// Explain asks what the policy says of the caller.
func (c *Client) Explain(ctx context.Context, q Question) (Answer, error) {
	return post[Answer](ctx, c, "/v1/policy/explain", q)
}

// CreateKey makes a key for a program.
func (c *Client) CreateKey(ctx context.Context, k NewKey) (KeyCreated, error) {
	return post[KeyCreated](ctx, c, "/v1/keys", k)
}

// Keys lists the caller's keys.
func (c *Client) Keys(ctx context.Context) ([]Key, error) { return get[[]Key](ctx, c, "/v1/keys") }

// RevokeKey ends a key of the caller's, by name or id.
func (c *Client) RevokeKey(ctx context.Context, key string) (Key, error) {
	return post[Key](ctx, c, "/v1/keys/"+url.PathEscape(key)+"/revoke", nil)
}

// AdminKeys lists everybody's keys.
func (c *Client) AdminKeys(ctx context.Context) ([]Key, error) {
	return get[[]Key](ctx, c, "/v1/admin/keys")
}

// AdminRevokeKey ends anybody's key, by its id.
func (c *Client) AdminRevokeKey(ctx context.Context, id string) error {
	_, err := post[struct{}](ctx, c, "/v1/admin/keys/"+url.PathEscape(id)+"/revoke", nil)
	return err
}

// AdminStatus is Status as administrators see it: every session.
func (c *Client) AdminStatus(ctx context.Context) (Status, error) {
	return get[Status](ctx, c, "/v1/admin/status")
}

// ask is get with a question in the query.
func ask[T any](ctx context.Context, c *Client, path string, q any) (T, error) {
	values, err := queryOf(q)
	if err != nil {
		var none T
		return none, err
	}
	return get[T](ctx, c, withQuery(path, values))
}

func get[T any](ctx context.Context, c *Client, path string) (T, error) {
	return call[T](ctx, c, http.MethodGet, path, nil)
}

func post[T any](ctx context.Context, c *Client, path string, body any) (T, error) {
	return call[T](ctx, c, http.MethodPost, path, body)
}

func call[T any](ctx context.Context, c *Client, method, path string, body any) (T, error) {
	var out T
	var payload io.Reader
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			return out, fmt.Errorf("encode request: %w", err)
		}
		payload = bytes.NewReader(data)
	}
	r, err := http.NewRequestWithContext(ctx, method, c.base+path, payload)
	if err != nil {
		return out, fmt.Errorf("build request: %w", err)
	}
	r.Header.Set("Content-Type", "application/json")
	reply, err := c.http.Do(r)
	if err != nil {
		var urlErr *url.Error
		if errors.As(err, &urlErr) { // its text would show an address that means nothing to the user
			err = urlErr.Err
		}
		return out, fmt.Errorf("call relay API %s: %w", path, err)
	}
	defer reply.Body.Close()
	return out, decodeReply(reply, &out)
}

// decodeReply fills out from a good answer and returns *Error for any other.
func decodeReply(reply *http.Response, out any) error {
	data, err := io.ReadAll(io.LimitReader(reply.Body, maxReplyBytes+1))
	if err != nil {
		return fmt.Errorf("read relay's answer: %w", err)
	}
	if len(data) > maxReplyBytes {
		return fmt.Errorf("the relay's answer is larger than %d bytes", maxReplyBytes)
	}
	if reply.StatusCode >= 400 {
		e := &Error{Status: reply.StatusCode}
		if json.Unmarshal(data, e) != nil || e.Code == "" {
			e.Code, e.Message = "relay_error", fmt.Sprintf("the relay answered %s", reply.Status)
		}
		return e
	}
	if reply.StatusCode != http.StatusOK {
		return &Error{Status: reply.StatusCode, Code: "relay_error", Message: fmt.Sprintf("the relay answered %s", reply.Status)}
	}
	if err := json.Unmarshal(data, out); err != nil {
		return fmt.Errorf("read relay's answer: %w", err)
	}
	return nil
}

// FetchDiscovery reads the Discovery document of the relay at address
// (host[:port]). hc carries the TLS settings and the proxy.
func FetchDiscovery(ctx context.Context, hc *http.Client, address string) (Discovery, error) {
	var d Discovery
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+address+DiscoveryPath, nil)
	if err != nil {
		return d, fmt.Errorf("relay name %q: %w", address, err)
	}
	reply, err := noRedirects(hc).Do(r)
	if err != nil {
		return d, fmt.Errorf("reach relay %s: %w", address, err)
	}
	defer reply.Body.Close()
	if err := decodeReply(reply, &d); err != nil {
		return d, err
	}
	if len(d.RelayKey) != 32 || d.Relay == "" {
		return d, &Error{Code: "not_a_relay", Message: fmt.Sprintf("%s answers, but not as a relay", address), Hint: "check the name and the port"}
	}
	return d, nil
}

// Join enrols an agent at the relay.
func Join(ctx context.Context, hc *http.Client, address string, q JoinRequest) (JoinReply, error) {
	joiner := &Client{http: noRedirects(hc), base: "https://" + address}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	return post[JoinReply](ctx, joiner, JoinPath, q)
}

// noRedirects copies hc so that it does not follow a redirect: what a relay
// says must come from the name the user typed.
func noRedirects(hc *http.Client) *http.Client {
	c := *hc
	c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &c
}
