package events

import (
	"encoding/base64"
	"encoding/json"
	"mime"
	"net/http"
	"net/url"
	"strings"

	"github.com/pellucid/pellucid/collector/proxy/oip"
)

// Refusal is an event that is the sender's fault; it must not be sent again.
type Refusal struct{ Reason string }

func (r *Refusal) Error() string { return r.Reason }

func refuse(reason string) error { return &Refusal{Reason: reason} }

// Bounds of one event.
const (
	maxBatch     = 1000
	maxAttribute = 1024
)

// Event is one CloudEvent, as far as it counts here.
type Event struct {
	ID, Type, Time string
	// Extensions by their lower-case names.
	Extensions map[string]string
	Data       []byte
}

// Read reads the events of one HTTP request: by its Ce- headers (binary mode), or
// out of its body (structured and batch mode).
func Read(header http.Header, body []byte) ([]Event, error) {
	kind, _, err := mime.ParseMediaType(header.Get("Content-Type"))
	if err != nil && header.Get("Content-Type") != "" {
		return nil, refuse("the content type cannot be read")
	}
	switch kind {
	case "application/cloudevents+json":
		e, err := structured(body)
		return []Event{e}, err
	case "application/cloudevents-batch+json":
		var list []json.RawMessage
		if oip.Check(body) != nil || json.Unmarshal(body, &list) != nil || len(list) == 0 || len(list) > maxBatch {
			return nil, refuse("the body is not a list of 1 to 1,000 CloudEvents")
		}
		out := make([]Event, len(list))
		for i, raw := range list {
			if out[i], err = structured(raw); err != nil {
				return nil, err
			}
		}
		return out, nil
	}
	e := Event{Extensions: map[string]string{}, Data: body}
	for name, values := range header {
		if key, ok := strings.CutPrefix(strings.ToLower(name), "ce-"); ok && len(values) > 0 {
			value := values[0]
			// The protocol's binding for HTTP escapes what a header cannot hold.
			if plain, err := url.PathUnescape(value); err == nil {
				value = plain
			}
			e.set(key, value)
		}
	}
	return []Event{e}, e.check()
}

func (e *Event) set(key, value string) {
	switch key {
	case "id":
		e.ID = value
	case "type":
		e.Type = value
	case "time":
		e.Time = value
	default:
		e.Extensions[key] = value
	}
}

func (e *Event) check() error {
	if e.ID == "" || e.Type == "" || e.Extensions["specversion"] == "" {
		return refuse("it is no CloudEvent: id, type or specversion is missing")
	}
	for _, s := range []string{e.ID, e.Type, e.Time} {
		if len(s) > maxAttribute {
			return refuse("an attribute of the CloudEvent is longer than 1,024 bytes")
		}
	}
	return nil
}

// structured reads one event that is JSON as a whole.
func structured(body []byte) (Event, error) {
	e := Event{Extensions: map[string]string{}}
	var all map[string]json.RawMessage
	if oip.CheckUnique(body) != nil || json.Unmarshal(body, &all) != nil {
		return e, refuse("the body is not a CloudEvent in JSON")
	}
	for key, raw := range all {
		switch key {
		case "data":
			e.Data = raw
			// JSON that travels as a string.
			var text string
			if json.Unmarshal(raw, &text) == nil {
				e.Data = []byte(text)
			}
		case "data_base64":
			var text string
			data, err := []byte(nil), json.Unmarshal(raw, &text)
			if err == nil {
				data, err = base64.StdEncoding.DecodeString(text)
			}
			if err != nil {
				return e, refuse("data_base64 is not base64")
			}
			e.Data = data
		default:
			var text string
			if json.Unmarshal(raw, &text) == nil {
				e.set(key, text)
			}
		}
	}
	return e, e.check()
}

// half says which part of a prediction an event is.
type half string

const (
	request  half = "request"
	response half = "response"
)

func (h half) other() half {
	if h == request {
		return response
	}
	return request
}

// halves are the types of event that are taken.
var halves = map[string]half{
	"org.kubeflow.serving.inference.request":  request,
	"org.kubeflow.serving.inference.response": response,
	"io.seldon.serving.inference.request":     request,
	"io.seldon.serving.inference.response":    response,
}
