package proxy

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/collector/proxy/oip"
)

// ownParams are the request parameters that are ours: no upstream sees them.
var ownParams = []string{"event_time", "event_times", "external_id", "external_ids", "binary_data_output"}

const (
	maxExternalID = 1024
	// maxAhead is how far an event time may lie ahead of our clock.
	maxAhead = 5 * time.Minute
)

var (
	earliest = time.Date(1970, 1, 1, 0, 0, 0, 0, time.UTC)
	latest   = time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)
)

// eventTime parses an event time and holds it against the clock.
func (s *Server) eventTime(what, text string) (time.Time, error) {
	t, err := time.Parse(time.RFC3339Nano, text)
	// time.Parse takes more than RFC 3339: a comma, an hour of one digit.
	if err != nil || strings.Contains(text, ",") || text[13] != ':' {
		return t, fail(http.StatusBadRequest, "%s is not an RFC 3339 time", oip.Own(what))
	}
	t = t.UTC().Truncate(time.Microsecond)
	if t.Before(earliest) || !t.Before(latest) {
		return t, fail(http.StatusBadRequest, "%s lies outside 1970 to 2100", oip.Own(what))
	}
	if t.After(s.cfg.Now().Add(maxAhead)) {
		return t, fail(http.StatusBadRequest, "%s lies more than 5 minutes ahead", oip.Own(what))
	}
	return t, nil
}

// mark takes event times and external ids out of a request's parameters. The
// caller's own id is the protocol's where no parameter gives one.
func (k *call) mark(req *oip.Request) error {
	times, err := perRow(req.Params, "event_time", "event_times", k.rows)
	if err != nil {
		return err
	}
	for _, text := range times {
		t, err := k.s.eventTime("the event time", text)
		if err != nil {
			return err
		}
		k.times = append(k.times, t)
	}
	ids, err := perRow(req.Params, "external_id", "external_ids", k.rows)
	if err != nil {
		return err
	}
	if len(ids) == 0 && req.HasID && req.ID != "" {
		ids = []string{req.ID}
	}
	for _, id := range ids {
		if len(id) > maxExternalID {
			return fail(http.StatusBadRequest, "an external id is longer than %d bytes", oip.Number(maxExternalID))
		}
	}
	k.externalIDs = ids
	return nil
}

// nameRefused notes the caller's own id of a request whose rows are not known, where it is
// one for all of it. One that could not be recorded is left out.
func (k *call) nameRefused(req *oip.Request) {
	id, ok := "", false
	if p := req.Params.Get("external_id"); p != nil {
		id, ok = scalarText(p)
	} else if req.Params.Get("external_ids") == nil && req.HasID {
		id, ok = req.ID, true
	}
	if ok && id != "" && len(id) <= maxExternalID {
		k.externalIDs = []string{id}
	}
}

// perRow reads a parameter that is one scalar for all rows, or under its plural
// name a list with one for each: a string that holds a JSON array, because the
// protocol's parameters are scalars (the array itself is taken too).
func perRow(p oip.Params, one, many string, rows int) ([]string, error) {
	single, list := p.Get(one), p.Get(many)
	switch {
	case single != nil && list != nil:
		return nil, fail(http.StatusBadRequest, "parameters %q and %q exclude each other", oip.Own(one), oip.Own(many))
	case single != nil:
		text, ok := scalarText(single)
		if !ok {
			return nil, fail(http.StatusBadRequest, "parameter %q must be a string", oip.Own(one))
		}
		return []string{text}, nil
	case list == nil:
		return nil, nil
	}
	var raw string
	switch v := list.(type) {
	case string:
		raw = v
	case json.RawMessage:
		raw = string(v)
	}
	d := json.NewDecoder(strings.NewReader(raw))
	d.UseNumber()
	var items []any
	if oip.Check([]byte(raw)) != nil || d.Decode(&items) != nil {
		return nil, fail(http.StatusBadRequest, "parameter %q must be a string that holds a JSON array", oip.Own(many))
	}
	if len(items) != rows {
		return nil, fail(http.StatusBadRequest, "parameter %q has %d entries for %d rows", oip.Own(many), len(items), rows)
	}
	out := make([]string, len(items))
	for i, it := range items {
		switch v := it.(type) {
		case string:
			out[i] = v
		case json.Number:
			out[i] = v.String()
		default:
			return nil, fail(http.StatusBadRequest, "parameter %q: entry %d is not a string", oip.Own(many), oip.Number(i))
		}
	}
	return out, nil
}

func scalarText(v any) (string, bool) {
	switch v := v.(type) {
	case string:
		return v, true
	case int64:
		return strconv.FormatInt(v, 10), true
	case uint64:
		return strconv.FormatUint(v, 10), true
	}
	return "", false
}

// explainOptions reads what an explain request's parameters ask for. A name that
// is not known is refused: ignoring it would explain something else.
func explainOptions(params oip.Params) (collector.ExplainRequest, error) {
	fields := map[string]json.RawMessage{}
	for _, p := range params.Without(ownParams...) {
		raw, err := optionJSON(p)
		if err != nil {
			return collector.ExplainRequest{}, err
		}
		fields[p.Name] = raw
	}
	var req collector.ExplainRequest
	if len(fields) == 0 {
		return req, nil
	}
	body, err := json.Marshal(fields)
	if err != nil {
		return req, fail(http.StatusBadRequest, "a parameter is not valid JSON")
	}
	return req, decodeJSON(body, &req, true)
}

// optionJSON returns a parameter as JSON. An option that is an object or a list
// may come as a string that holds it.
func optionJSON(p oip.Param) (json.RawMessage, error) {
	text, ok := p.Value.(string)
	if ok && text != "" && (text[0] == '{' || text[0] == '[') {
		if err := oip.Check([]byte(text)); err != nil {
			return nil, fail(http.StatusBadRequest, "parameter %q: %s", clip(p.Name), err)
		}
		return json.RawMessage(text), nil
	}
	raw, err := json.Marshal(p.Value)
	if err != nil {
		return nil, fail(http.StatusBadRequest, "parameter %q is not a JSON value", clip(p.Name))
	}
	return raw, nil
}
