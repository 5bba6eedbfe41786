package proxy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/engine"
)

// MaxImported bounds the predictions of one import request.
const MaxImported = 10_000

// Weights outside of these would be lost in sums beside others, or drown them.
const minWeight, maxWeight = 1e-6, 1e6

// importResults is the answer to an import. Error is set where every prediction
// was refused.
type importResults struct {
	Accepted  int                      `json:"accepted"`
	Duplicate int                      `json:"duplicate"`
	Refused   int                      `json:"refused"`
	Results   []collector.ImportResult `json:"results"`
	Error     string                   `json:"error,omitempty"`
}

// importPredictions takes predictions that were made elsewhere, one or a list. It
// answers when those it accepts are recorded. A prediction whose id is known
// already is a duplicate and changes nothing, so a whole request may be sent
// again.
func (s *Server) importPredictions(c echo.Context) error {
	items, err := s.jsonList(c, "predictions", MaxImported)
	if err != nil {
		return err
	}
	rows := make([]*collector.Imported, len(items))
	unread := make([]error, len(items))
	for i, raw := range items {
		row := &collector.Imported{}
		if unread[i] = decodeJSON(raw, row, true); unread[i] == nil {
			rows[i] = row
		}
	}
	out := importResults{}
	if out.Results, err = s.Import(c.Request().Context(), rows); err != nil {
		return err
	}
	for i := range out.Results {
		switch r := &out.Results[i]; {
		case unread[i] != nil:
			r.Error = asFailure(unread[i]).message
			out.Refused++
		case r.Status == collector.ImportAccepted:
			out.Accepted++
		case r.Status == collector.ImportDuplicate:
			out.Duplicate++
		default:
			out.Refused++
		}
	}
	if out.Refused == len(items) {
		out.Error = fmt.Sprintf("row 1: %s", out.Results[0].Error)
		return c.JSON(http.StatusBadRequest, out)
	}
	return s.reply(c, out)
}

// Import records predictions that were made elsewhere, however they came. It
// returns when those it accepts are recorded, with what became of each; a nil row
// is refused. After an error some are recorded: all may be sent again, and those
// are then duplicates.
func (s *Server) Import(ctx context.Context, rows []*collector.Imported) ([]collector.ImportResult, error) {
	return s.imported(ctx, rows, s.cfg.Said)
}

// ImportSpans is Import of predictions that spans told of, whose values are known to
// whoever takes spans.
func (s *Server) ImportSpans(ctx context.Context, rows []*collector.Imported) ([]collector.ImportResult, error) {
	return s.imported(ctx, rows, nil)
}

func (s *Server) imported(ctx context.Context, rows []*collector.Imported, said func(context.Context, map[string][]json.RawMessage)) ([]collector.ImportResult, error) {
	if s.cfg.Capture == nil || s.cfg.External == nil {
		return nil, fail(http.StatusNotImplemented, "importing predictions is not configured")
	}
	ctx = context.WithoutCancel(ctx)
	now := time.Now().UTC().Truncate(time.Millisecond)
	out := make([]collector.ImportResult, len(rows))
	seen := map[string]bool{}
	traces := map[string][]json.RawMessage{}
	if said != nil {
		// Before an answer: the spans that it is waited for with may come at once.
		defer func() {
			if len(traces) > 0 {
				said(ctx, traces)
			}
		}()
	}
	// An error may repeat the values of another row.
	scrubbers := map[string]collector.Scrubber{}
	scrub := func(v *collector.ModelVersion) collector.Scrubber {
		x, ok := scrubbers[v.Digest]
		if !ok {
			x = withoutPrivate(v, rows)
			scrubbers[v.Digest] = x
		}
		return x
	}
	// The rows of each version, by which it is known if it is new.
	of := map[[2]string][]*collector.Imported{}
	for _, row := range rows {
		if row != nil {
			key := [2]string{row.Model, row.Version}
			of[key] = append(of[key], row)
		}
	}
	// All are known before any is recorded: of rows without ids none is to be sent twice
	// because the version of another is closed.
	ready := make([]readyRow, len(rows))
	for i, row := range rows {
		if row == nil {
			continue
		}
		r := &ready[i]
		if r.p, r.label, r.err = s.importedPrediction(row, now); r.err == nil {
			if r.v, r.err = s.importedVersion(row, of[[2]string{row.Model, row.Version}]); r.err == nil {
				s.rename(ctx, r.v, row)
			}
		}
		if r.err != nil && asFailure(r.err).status >= http.StatusInternalServerError {
			return nil, r.err
		}
	}
	for i, row := range rows {
		if row == nil {
			out[i] = collector.ImportResult{Status: collector.ImportRefused, Row: i + 1}
			continue
		}
		status, captured, err := s.importRow(ctx, row, ready[i], seen, scrub, traces)
		out[i] = collector.ImportResult{ID: row.ID, Status: status, Capture: captured}
		if err == nil {
			continue
		}
		f := asFailure(err)
		if f.status >= http.StatusInternalServerError {
			return nil, err
		}
		out[i].Status, out[i].Error = collector.ImportRefused, f.message
		out[i].Row, out[i].Field, out[i].Value = i+1, f.field, f.value
	}
	return out, nil
}

// readyRow is an imported row whose version is known, or why it is refused.
type readyRow struct {
	p     *collector.Prediction
	label *collector.Feedback
	v     *collector.ModelVersion
	err   error
}

// importRow records one prediction and says whether it is accepted or a duplicate, and how
// much of it is stored where that is not all.
func (s *Server) importRow(ctx context.Context, row *collector.Imported, ready readyRow, seen map[string]bool, scrub func(*collector.ModelVersion) collector.Scrubber, traces map[string][]json.RawMessage) (status, captured string, err error) {
	p, label, v := ready.p, ready.label, ready.v
	if ready.err != nil {
		return "", "", ready.err
	}
	p.Version, p.Digest = v.Version, v.Digest
	if hasPrivate(v) {
		onlyKnown(row)
	}
	if row.TraceID != "" {
		if private := privateOf(v, row); len(private) > 0 {
			traces[row.TraceID] = append(traces[row.TraceID], private...)
		}
	}
	switch {
	case p.Error == "" || row.OwnError:
	case s.cfg.KnownError == nil:
		p.Error = scrub(v).Text(p.Error)
	case (hasPrivate(v) || len(row.Hidden) > 0) && !s.cfg.KnownError(p.Error):
		p.Error = collector.TextNotKept
	}
	key := v.Name + "\x00" + row.ID
	if row.ID != "" && (seen[key] || s.cfg.Recorded != nil && s.cfg.Recorded(v.Name, row.ID)) {
		return collector.ImportDuplicate, "", nil
	}
	// A text may repeat another row of the request.
	in, out, err := importedValues(v, row, func() collector.Scrubber { return scrub(v) })
	if err != nil {
		return "", "", err
	}
	if row.ID == "" {
		id, err := uuid.NewV7()
		if err != nil {
			return "", "", err
		}
		row.ID = id.String()
	}
	p.ID = row.ID
	if label != nil {
		// In the prediction's own record: neither is there without the other.
		p.Label, p.LabelObservedAt, p.LabelArrival = label.Label, label.ObservedAt, label.Arrival
	}
	if err := s.cfg.Capture(ctx, p, v, in, out); err != nil {
		return "", "", err
	}
	seen[key] = true
	if p.Capture != collector.CaptureFull && in != nil {
		captured = p.Capture
	}
	return collector.ImportAccepted, captured, nil
}

// withoutPrivate takes out of a text of the rows' sender what they have in private
// features.
func withoutPrivate(v *collector.ModelVersion, rows []*collector.Imported) collector.Scrubber {
	var private []json.RawMessage
	for _, row := range rows {
		if row != nil && row.Model == v.Name {
			private = append(private, privateOf(v, row)...)
		}
	}
	return collector.NewScrubber(private, nil)
}

// onlyKnown leaves of a row's outputs what is known where it can be told.
func onlyKnown(row *collector.Imported) {
	for name, raw := range row.Known {
		if _, ok := row.Outputs[name]; ok { // a failed one has none
			row.Outputs[name] = raw
		}
	}
}

// hasPrivate reports whether a feature of a version is private.
func hasPrivate(v *collector.ModelVersion) bool {
	return slices.ContainsFunc(v.Schema.Features, func(f collector.Field) bool { return f.Private != collector.PrivacyNone })
}

// privateOf are what a row has in private features and in those called like one that the version
// does not know, or had when it came.
func privateOf(v *collector.ModelVersion, row *collector.Imported) (private []json.RawMessage) {
	private = append(private, row.Hidden...)
	for i := range v.Schema.Features {
		if f := &v.Schema.Features[i]; f.Private != collector.PrivacyNone {
			for _, raw := range []json.RawMessage{row.Features[f.Name], row.Content[f.Name]} {
				if len(raw) > 0 {
					private = append(private, raw)
				}
			}
		}
	}
	if v.Config.PrivateFeature() == "" {
		return private
	}
	known := namesOf(v.Schema.Features, func(f *collector.Field) string { return f.Name })
	for _, name := range unknown(row.Features, known) {
		if v.Config.PrivateAlike(name) != collector.PrivacyNone {
			private = append(private, row.Features[name])
		}
	}
	return private
}

// importedPrediction checks what a row says beside its values.
func (s *Server) importedPrediction(row *collector.Imported, now time.Time) (*collector.Prediction, *collector.Feedback, error) {
	p := &collector.Prediction{
		Rows: 1, ReceivedAt: now, Times: []time.Time{now}, Tenant: collector.DefaultTenant, Model: row.Model,
		Route: collector.RouteImported, TraceID: row.TraceID, SpanID: row.SpanID, Status: row.Status, Error: row.Error, Weight: 1,
	}
	switch {
	case p.Status != 0:
	case p.Error != "":
		p.Status = http.StatusInternalServerError
	default:
		p.Status = http.StatusOK
	}
	switch {
	case row.Model == "" || len(row.Model) > maxID || len(row.Version) > maxID:
		return nil, nil, fail(http.StatusBadRequest, "model is missing, or its name or version is longer than %d bytes", maxID)
	case len(row.ID) > maxID || strings.HasPrefix(row.ID, "trace:"):
		return nil, nil, fail(http.StatusBadRequest, "id is longer than %d bytes or begins with trace:", maxID)
	case len(row.ExternalID) > maxExternalID:
		return nil, nil, fail(http.StatusBadRequest, "external_id is longer than %d bytes", maxExternalID)
	case row.TraceID != "" && !hexID(row.TraceID, 32):
		return nil, nil, fail(http.StatusBadRequest, "trace_id is not 32 lower-case hexadecimal digits")
	case row.SpanID != "" && !hexID(row.SpanID, 16):
		return nil, nil, fail(http.StatusBadRequest, "span_id is not 16 lower-case hexadecimal digits")
	case p.Status < 100 || p.Status > 599:
		return nil, nil, fail(http.StatusBadRequest, "status %d is not an HTTP status", p.Status)
	}
	var err error
	if row.Time != "" {
		if p.Times[0], err = s.eventTime("time", row.Time); err != nil {
			return nil, nil, err
		}
	}
	if row.ExternalID != "" {
		p.ExternalIDs = []string{row.ExternalID}
	}
	if row.Weight != nil {
		if p.Weight = *row.Weight; !(p.Weight >= minWeight && p.Weight <= maxWeight) {
			return nil, nil, fail(http.StatusBadRequest, "weight must be a number from 0.000001 to 1000000")
		}
	}
	if err := stagesOf(row.LatencyMS, &p.Latency); err != nil {
		return nil, nil, err
	}
	label, err := s.importedLabel(row, now)
	return p, label, err
}

// hexID reports whether id is a trace's or a span's: digits of which one is not 0.
func hexID(id string, digits int) bool {
	return len(id) == digits && strings.Trim(id, "0123456789abcdef") == "" && strings.Trim(id, "0") != ""
}

// stagesOf reads latencies by their stages.
func stagesOf(ms map[string]float64, to *collector.Stages) error {
	for name, v := range ms {
		ns := v * 1e6
		if !(ns >= 0) || ns > math.MaxInt64/2 {
			return fail(http.StatusBadRequest, "latency_ms: %q is not a time", clip(name))
		}
		switch name {
		case "decode":
			to.Decode = int64(ns)
		case "model":
			to.Model = int64(ns)
		case "encode":
			to.Encode = int64(ns)
		case "capture":
			to.Capture = int64(ns)
		case "total":
			to.Total = int64(ns)
		default:
			return fail(http.StatusBadRequest, "latency_ms: there is no stage %q (decode, model, encode, capture, total)", clip(name))
		}
	}
	return nil
}

// importedLabel is the label that came with a prediction, or nil.
func (s *Server) importedLabel(row *collector.Imported, now time.Time) (*collector.Feedback, error) {
	if len(row.Label) == 0 || string(row.Label) == "null" {
		return nil, nil //nolint:nilnil // no label came, which is no error
	}
	if s.cfg.Feedback == nil {
		return nil, fail(http.StatusNotImplemented, "feedback is not configured")
	}
	text, err := labelText(row.Label)
	if err != nil {
		return nil, err
	}
	f := &collector.Feedback{Tenant: collector.DefaultTenant, Label: text, ObservedAt: now, ReceivedAt: now, Arrival: s.arrivals.Next(time.Now())}
	if row.ObservedAt != "" {
		f.ObservedAt, err = s.eventTime("observed_at", row.ObservedAt)
	}
	return f, err
}

// importedVersion finds the version a row is of. One that is not known yet is
// described by the row's own Info, or by all rows of the request that are of it (all).
func (s *Server) importedVersion(row *collector.Imported, all []*collector.Imported) (*collector.ModelVersion, error) {
	var info *engine.Info
	return s.cfg.External(row.Model, row.Version, func() (_ *engine.Info, err error) {
		if row.Info != nil {
			return row.Info, nil
		}
		if info, err = describe(row, all); err == nil {
			err = s.outputsNamed(row, info)
		}
		return info, err
	}, func(v *collector.ModelVersion) *engine.Info {
		if row.Info != nil {
			return nil // names of ours
		}
		return s.named(v, info, all)
	})
}

// outputsNamed refuses a version that is not known yet whose outputs may repeat what is private.
func (s *Server) outputsNamed(row *collector.Imported, info *engine.Info) error {
	if s.cfg.OutputNamed == nil {
		return nil
	}
	names := make([]string, len(info.Outputs))
	for i := range names {
		names[i] = info.Outputs[i].Name
	}
	name, err := s.cfg.OutputNamed(row.Model, row.Version, names)
	if err == nil && name != "" {
		err = namedPrivate(name)
	}
	return err
}

func namedPrivate(output string) error {
	return ofField(nil, output, nil, "output %q has the name of a private feature, which it may repeat: call it otherwise, and import it under another version", clip(output))
}

// describe says what a model takes and gives by the values of its first rows.
func describe(row *collector.Imported, all []*collector.Imported) (*engine.Info, error) {
	info := &engine.Info{Format: collector.ImportedFormat, Task: engine.TaskOther, Missing: true}
	var err error
	of := func(part func(*collector.Imported) map[string]json.RawMessage) []map[string]json.RawMessage {
		var list []map[string]json.RawMessage
		for _, r := range all {
			list = append(list, part(r))
		}
		return list
	}
	if info.Inputs, err = columnsOf("feature", of(func(r *collector.Imported) map[string]json.RawMessage { return r.Features })); err != nil {
		return nil, err
	}
	for _, in := range info.Inputs {
		if len(in.Shape) > 1 {
			return nil, fail(http.StatusBadRequest, "feature %q is a list: a feature is one value, as %q", clip(in.Name), clip(in.Name+"[0]"))
		}
	}
	info.Features = featuresNamed(info.Inputs)
	if info.Outputs, err = columnsOf("output", of(func(r *collector.Imported) map[string]json.RawMessage { return r.Outputs })); err != nil {
		return nil, err
	}
	if len(info.Inputs) == 0 || len(info.Outputs) == 0 {
		return nil, fail(http.StatusBadRequest, "model %q is not known, and no row here has both features and outputs to know it by", clip(row.Model))
	}
	return info, nil
}

// featuresNamed are the features of columns.
func featuresNamed(columns []engine.Spec) []engine.Feature {
	var out []engine.Feature
	for _, in := range columns {
		out = append(out, engine.Feature{Name: in.Name, Categorical: in.DType == engine.String})
	}
	return out
}

// columnsOf describes columns by their values in rows, sorted by name.
func columnsOf(what string, rows []map[string]json.RawMessage) ([]engine.Spec, error) {
	specs := map[string]*engine.Spec{}
	var names []string
	for _, row := range rows {
		for name, raw := range row {
			if name == "" || len(name) > maxID {
				return nil, fail(http.StatusBadRequest, "a %s has no name, or one longer than %d bytes", what, maxID)
			}
			if specs[name] == nil {
				specs[name] = &engine.Spec{Name: name}
				names = append(names, name)
			}
			found, err := specOfValue(raw)
			if err != nil {
				return nil, fail(http.StatusBadRequest, "%s %q: %s", what, clip(name), err)
			}
			have := specs[name]
			switch {
			case found == nil: // null says nothing
			case have.DType == engine.Invalid:
				have.DType, have.Shape = found.DType, found.Shape
			case have.DType != found.DType || !slices.Equal(have.Shape, found.Shape):
				return nil, fail(http.StatusBadRequest, "%s %q is %s %v in one row and %s %v in another", what, clip(name), have.DType, have.Shape, found.DType, found.Shape)
			}
		}
	}
	slices.Sort(names)
	out := make([]engine.Spec, 0, len(names))
	for _, name := range names {
		if specs[name].DType == engine.Invalid {
			return nil, fail(http.StatusBadRequest, "%s %q is null in every row here and its type is not known yet: send a row that has it first", what, clip(name))
		}
		out = append(out, *specs[name])
	}
	return out, nil
}

// specOfValue is the type of one JSON value; nil for null.
func specOfValue(raw json.RawMessage) (*engine.Spec, error) {
	var v any
	if json.Unmarshal(raw, &v) != nil { // which says the value
		return nil, errors.New("a number that is too large")
	}
	spec := &engine.Spec{Shape: []int{-1}}
	if list, ok := v.([]any); ok {
		if len(list) == 0 {
			return nil, fmt.Errorf("the list is empty")
		}
		spec.Shape = []int{-1, len(list)}
		v = list[0]
	}
	switch v.(type) {
	case nil:
		if len(spec.Shape) > 1 {
			return nil, fmt.Errorf("a list begins with null")
		}
		return nil, nil //nolint:nilnil // null has no type
	case float64:
		spec.DType = engine.Float64
	case bool:
		spec.DType = engine.Bool
	case string:
		spec.DType = engine.String
	default:
		return nil, fmt.Errorf("neither a number, a string, a boolean nor a list of them")
	}
	return spec, nil
}

// importedValues turns a row's JSON into what its version takes and gives. in is
// nil where the row has no features, out where it has no outputs.
func importedValues(v *collector.ModelVersion, row *collector.Imported, said func() collector.Scrubber) (in, out engine.Values, err error) {
	if len(row.Features) > 0 {
		if len(v.Info.Features) == 0 {
			return nil, nil, fail(http.StatusBadRequest, "model %q takes tensors, which cannot be imported as features", clip(v.Name))
		}
		columns, err := importedColumns(v, declared(v.Info, row))
		if err != nil {
			return nil, nil, err
		}
		if in, _, err = engine.Bind(v.Info, columns); err != nil {
			return nil, nil, err
		}
	}
	if len(row.Outputs) == 0 {
		return in, nil, nil
	}
	for name := range row.Outputs {
		if specOf(v.Info.Outputs, name) == nil {
			return nil, nil, ofField(nil, name, nil, "the model has no output %q", clip(name))
		}
		if row.Info == nil && v.Info.Format == collector.ImportedFormat && (v.Config.Policy(name) != collector.PrivacyNone || v.Config.PrivateAlike(name) != collector.PrivacyNone) {
			return nil, nil, namedPrivate(name)
		}
	}
	for i := range v.Info.Outputs {
		spec := &v.Info.Outputs[i]
		raw, ok := row.Outputs[spec.Name]
		if !ok {
			return nil, nil, ofField(nil, spec.Name, nil, "output %q is absent", clip(spec.Name))
		}
		t, err := importedOutput(spec, raw)
		if err != nil {
			return nil, nil, ofField(v.Schema.Outputs, spec.Name, raw, "output %q: %s", clip(spec.Name), err)
		}
		texts := engine.Data[string](t) // read out of the row, and nobody else's
		collector.WithoutValues(v, said, texts)
		if row.Alone && hasPrivate(v) {
			collector.WithoutTexts(v, texts)
		}
		out = append(out, engine.Named{Name: spec.Name, Tensor: t})
	}
	return in, out, nil
}

// declared are a row's features and of its content what the version has.
func declared(info *engine.Info, row *collector.Imported) map[string]json.RawMessage {
	if len(row.Content) == 0 {
		return row.Features
	}
	out := make(map[string]json.RawMessage, len(row.Features)+1)
	maps.Copy(out, row.Features)
	for name, raw := range row.Content {
		if slices.ContainsFunc(info.Features, func(f engine.Feature) bool { return f.Name == name }) {
			out[name] = raw
		}
	}
	return out
}

// maxSaid bounds how much of a value is said again to its sender.
const maxSaid = 40

// ofField is a failure of one field of an imported row. What its value was is said again
// where fields, those of the version, say that it is not private.
func ofField(fields []collector.Field, name string, raw json.RawMessage, format string, args ...any) *failure {
	f := fail(http.StatusBadRequest, format, args...)
	f.field = clip(name)
	i := slices.IndexFunc(fields, func(f collector.Field) bool { return f.Name == name })
	if i < 0 || fields[i].Private != collector.PrivacyNone {
		return f
	}
	f.value = string(raw)
	if runes := []rune(f.value); len(runes) > maxSaid {
		f.value = string(runes[:maxSaid]) + "..."
	}
	return f
}

// importedColumns makes one tensor a feature. A feature that is null or absent is
// missing.
func importedColumns(v *collector.ModelVersion, features map[string]json.RawMessage) (engine.Values, error) {
	info := v.Info
	out := make(engine.Values, 0, len(info.Features))
	known := 0
	for i, f := range info.Features {
		dtype := info.Inputs[min(i, len(info.Inputs)-1)].DType
		raw, ok := features[f.Name]
		if ok {
			known++
		}
		var is any
		if ok {
			if json.Unmarshal(raw, &is) != nil { // which says the value
				return nil, ofField(v.Schema.Features, f.Name, raw, "feature %q is a number that is too large", clip(f.Name))
			}
		}
		if n, whole := wholeNumber(is, raw); whole && dtype == engine.String && info.Format == "catboost" {
			is = n // to which it is the category of that text
		}
		t, err := featureTensor(is, dtype)
		if _, text := is.(string); text && err == nil && dtype != engine.String && !f.Categorical && f.Categories == nil {
			err = errors.New("is text, it takes numbers")
		}
		if err != nil {
			return nil, ofField(v.Schema.Features, f.Name, raw, "feature %q %s", clip(f.Name), err)
		}
		out = append(out, engine.Named{Name: f.Name, Tensor: t})
	}
	if known < len(features) {
		for name := range features {
			if !slices.ContainsFunc(info.Features, func(f engine.Feature) bool { return f.Name == name }) {
				return nil, ofField(nil, name, nil, "this version has no feature %q: import it under another version", clip(name))
			}
		}
	}
	return out, nil
}

// wholeNumber is a JSON number as the integer that it is, where no digit is lost.
func wholeNumber(is any, raw json.RawMessage) (int64, bool) {
	v, ok := is.(float64)
	if n, err := strconv.ParseInt(string(raw), 10, 64); ok && err == nil {
		return n, true
	}
	return int64(v), ok && v == math.Trunc(v) && math.Abs(v) < 1<<53
}

func featureTensor(v any, dtype engine.DType) (*engine.Tensor, error) {
	switch v := v.(type) {
	case int64:
		return engine.Of([]int64{v}, 1)
	case nil:
		if dtype == engine.String {
			return engine.Of([]string{""}, 1)
		}
		if !dtype.IsFloat() {
			return nil, fmt.Errorf("is missing, which a %s cannot be", dtype)
		}
		return engine.Of([]float64{math.NaN()}, 1)
	case float64:
		if dtype == engine.String {
			return nil, fmt.Errorf("is a number, it was text before")
		}
		return engine.Of([]float64{v}, 1)
	case bool:
		if dtype == engine.String {
			return nil, fmt.Errorf("is a boolean, it was text before")
		}
		return engine.Of([]bool{v}, 1)
	case string:
		return engine.Of([]string{v}, 1)
	}
	return nil, fmt.Errorf("is neither a number, a string, a boolean nor null")
}

// importedOutput reads one output: a value, or a list of as many as it has.
func importedOutput(spec *engine.Spec, raw json.RawMessage) (*engine.Tensor, error) {
	n := 1
	for _, d := range spec.Shape[min(1, len(spec.Shape)):] {
		n *= d
	}
	if n < 1 {
		return nil, fmt.Errorf("its size varies, which cannot be imported")
	}
	shape := append([]int{1}, spec.Shape[min(1, len(spec.Shape)):]...)
	list := []json.RawMessage{raw}
	if n > 1 || len(raw) > 0 && raw[0] == '[' {
		if err := json.Unmarshal(raw, &list); err != nil || len(list) != n {
			return nil, fmt.Errorf("it must be a list of %d", n)
		}
	}
	if spec.DType == engine.String {
		return parseAll[string](list, shape)
	}
	if spec.DType == engine.Bool {
		return parseAll[bool](list, shape)
	}
	numbers := make([]float64, n)
	for i, one := range list {
		if string(one) == "null" {
			numbers[i] = math.NaN()
			continue
		}
		if err := json.Unmarshal(one, &numbers[i]); err != nil {
			return nil, fmt.Errorf("it must be a number")
		}
	}
	t, err := engine.Of(numbers, shape...)
	if err != nil || spec.DType == engine.Float64 {
		return t, err
	}
	// The output's own type, as a tensor of the same name would be read.
	bound, _, err := engine.Bind(&engine.Info{Inputs: []engine.Spec{{Name: "it", DType: spec.DType, Shape: shape}}, Missing: true}, engine.Values{{Name: "it", Tensor: t}})
	if err != nil {
		return nil, err
	}
	return bound[0].Tensor, nil
}

func parseAll[T string | bool](list []json.RawMessage, shape []int) (*engine.Tensor, error) {
	values := make([]T, len(list))
	for i, one := range list {
		if err := json.Unmarshal(one, &values[i]); err != nil {
			return nil, fmt.Errorf("it must be %s", wordFor(reflect.TypeFor[T]()))
		}
	}
	return engine.Of(values, shape...)
}
