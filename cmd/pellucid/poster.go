package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"
)

// poster sends JSON to a running server.
type poster struct {
	url    string
	client *http.Client
	// told takes why the server does not take what is posted, each reason once; nil takes none.
	told io.Writer
	said string
}

// post sends a body and wants 2xx; 503 is tried again, a second later. answer, if
// not nil, takes the JSON that came back.
func (p *poster) post(ctx context.Context, path string, body []byte, answer any) error {
	for {
		status, got, err := p.once(ctx, path, body)
		switch {
		case err != nil:
			return fmt.Errorf("post to %s%s: %w", p.url, path, err)
		case status < 300 && answer == nil:
			return nil
		case status < 300:
			return json.Unmarshal(got, answer)
		case status != http.StatusServiceUnavailable:
			return fmt.Errorf("post to %s%s: status %d: %s", p.url, path, status, bytes.TrimSpace(got[:min(len(got), 500)]))
		}
		if why := string(bytes.TrimSpace(got[:min(len(got), 500)])); p.told != nil && why != p.said {
			p.said = why
			fmt.Fprintf(p.told, "waiting, as the server answers 503: %s\n", why)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Second):
		}
	}
}

func (p *poster) once(ctx context.Context, path string, body []byte) (status int, answer []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.url+path, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := p.client.Do(req)
	if err != nil {
		return 0, nil, fmt.Errorf("ask the server: %w (is it running? --url says where)", err)
	}
	defer resp.Body.Close()
	answer, err = io.ReadAll(io.LimitReader(resp.Body, 16<<20))
	return resp.StatusCode, answer, err
}
