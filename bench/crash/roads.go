package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"
)

// road sends predictions made elsewhere until they are acknowledged, and some of
// them once more after that, as collectors and event brokers do.
type road func(ctx context.Context, client *http.Client, url string, ids []string) bool

// roads are those that a client may take beside inference, and how many predictions
// go together.
var roads = []struct {
	send road
	rows int
}{{sendSpans, 50}, {sendEvents, 1}}

// sendSpans sends spans by OTLP/HTTP.
func sendSpans(ctx context.Context, client *http.Client, url string, ids []string) bool {
	now := time.Now().UnixNano()
	spans := make([]string, len(ids))
	for i, id := range ids {
		spans[i] = fmt.Sprintf(`{"traceId":"%016x%016x","spanId":"%016x","name":"score","startTimeUnixNano":"%d","endTimeUnixNano":"%d","attributes":[
			{"key":"ml.model.name","value":{"stringValue":"spans"}},{"key":"ml.prediction.id","value":{"stringValue":%q}},
			{"key":"ml.features.a","value":{"doubleValue":0.5}},{"key":"ml.outputs.p","value":{"doubleValue":0.25}}]}`,
			rand.Uint64()|1, rand.Uint64(), rand.Uint64()|1, now-int64(time.Millisecond), now, id)
	}
	return repeat(ctx, client, url+"/v1/traces", nil, `{"resourceSpans":[{"scopeSpans":[{"spans":[`+strings.Join(spans, ",")+`]}]}]}`)
}

// sendEvents sends the two halves that KServe's payload logger makes of a call, in
// either order.
func sendEvents(ctx context.Context, client *http.Client, url string, ids []string) bool {
	halves := []string{"request", "response"}
	rand.Shuffle(2, func(i, j int) { halves[i], halves[j] = halves[j], halves[i] })
	bodies := map[string]string{"request": `{"instances":[{"a":0.5,"b":"x"}]}`, "response": `{"predictions":[0.25]}`}
	for _, half := range halves {
		header := map[string]string{
			"Ce-Specversion": "1.0", "Ce-Id": ids[0], "Ce-Source": "crash", "Ce-Type": "org.kubeflow.serving.inference." + half, "Ce-Inferenceservicename": "events",
		}
		if !repeat(ctx, client, url+"/api/v1/cloudevents", header, bodies[half]) {
			return false
		}
	}
	return true
}

// repeat sends a request until it is answered 200, and one in four once more.
func repeat(ctx context.Context, client *http.Client, url string, header map[string]string, body string) bool {
	for again := rand.IntN(4) == 0; ctx.Err() == nil; {
		switch {
		case !posted(ctx, client, url, header, body):
			time.Sleep(5 * time.Millisecond)
		case !again:
			return true
		default:
			again = false
		}
	}
	return false
}

func posted(ctx context.Context, client *http.Client, url string, header map[string]string, body string) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		return false
	}
	req.Header.Set("Content-Type", "application/json")
	for name, value := range header {
		req.Header.Set(name, value)
	}
	resp, err := client.Do(req)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return err == nil && resp.StatusCode == http.StatusOK
}
