package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/collector/audit"
	"github.com/pellucid/pellucid/dashboards/api"
	"github.com/pellucid/pellucid/engine"
)

// maxLetterText bounds a text that is set in a letter, as labels are bounded.
const maxLetterText = 1024

// editDead changes one letter and drives it again. The letter stays as it was until the
// changed one is stored, or has come back in its place.
func (s *server) editDead(ctx context.Context, r api.DriveRequest) (int, error) {
	if !s.driveMu.TryLock() {
		return 0, errBusy
	}
	defer s.driveMu.Unlock()
	l, err := s.dead.Get(r.IDs[0])
	if err != nil {
		return 0, err
	}
	if l.Driving {
		return 0, errDriven(l.ID)
	}
	if err := s.mend(ctx, l, r.Edit); err != nil {
		var own mendError
		if errors.As(err, &own) {
			err = api.BadRequest(err)
		}
		return 0, err
	}
	// Every name is a feature's by now, and no value is said.
	what := strings.Join(append(slices.Sorted(maps.Keys(r.Edit.Set)), r.Edit.Drop...), ", ")
	entry := audit.Entry{Action: "dead_letters.edit", Tenant: l.Tenant, Model: l.Model, Object: "dead letter " + l.ID + ": " + what}
	if err := s.act(ctx, entry, func() error { return s.drive(ctx, l) }); err != nil {
		return 0, err
	}
	s.spool.Flush()
	s.log.Info("a dead letter is changed and driven again", "letter", l.ID, "model", l.Model)
	return 1, nil
}

// errDriven refuses to change a letter of which the store may take what it is now.
func errDriven(id string) error {
	return fmt.Errorf("dead letter %s is on its way to the store as it is: ask again when that has taken or refused it: %w", id, collector.ErrRefused)
}

// mendError is a change that cannot be made. It repeats no value.
type mendError struct{ text string }

func (e mendError) Error() string { return e.text }

func cannotMend(format string, args ...any) error {
	return mendError{"change the dead letter: " + fmt.Sprintf(format, args...)}
}

// insertFeedback is the insert of labels.
const insertFeedback = "feedback"

// labelName is what a label is called among values that are set.
const labelName = "label"

// mend changes a letter's values. A prediction that is not as it was made is marked
// redacted, so that nobody explains it by what it no longer has.
func (s *server) mend(ctx context.Context, l *collector.DeadLetter, edit *api.DeadEdit) error {
	if l.Insert == insertFeedback {
		return s.mendLabel(l, edit)
	}
	if l.Insert != collector.InsertPredictions {
		return cannotMend("it is no prediction or feedback that the store lacks (%s)", l.Insert)
	}
	p, err := collector.DecodePrediction(l.Payload)
	if err != nil {
		return err
	}
	schema, err := s.schemaNamed(ctx, p.SchemaID)
	if err != nil {
		return err
	}
	row := 0
	switch {
	case edit.Row != nil:
		row = *edit.Row
	case p.Rows > 1:
		return cannotMend("it has %d rows: say which, from 0", p.Rows)
	}
	if row < 0 || row >= p.Rows {
		return cannotMend("it has %d rows, from 0", p.Rows)
	}
	// What was public when the prediction came may be private since.
	now, err := s.models.Policies(p.Model, p.Version, slices.Collect(maps.Keys(edit.Set)))
	if err != nil {
		return fmt.Errorf("change the dead letter: what is private in its model now is not known: %w", err)
	}
	for name, text := range edit.Set {
		i := slices.IndexFunc(schema.Features, func(f collector.Field) bool { return f.Name == name })
		if i < 0 && name == labelName {
			return cannotMend("a label is kept apart from its prediction: send another to POST /api/v1/feedback, or change the letter of the label itself")
		}
		if how := now[name]; how != collector.PrivacyNone {
			return cannotMend("feature %q is private (%s) and gets no other value: drop it, or leave out all features", name, how)
		}
		if err := s.setFeature(p, schema, i, row, &text); err != nil {
			return err
		}
	}
	for _, name := range edit.Drop {
		i := slices.IndexFunc(schema.Features, func(f collector.Field) bool { return f.Name == name })
		if err := s.setFeature(p, schema, i, row, nil); err != nil {
			return err
		}
	}
	l.Payload = collector.AppendPrediction(nil, p)
	return nil
}

// mendLabel changes a label that the store lacks, which came alone or with a prediction.
func (s *server) mendLabel(l *collector.DeadLetter, edit *api.DeadEdit) error {
	if len(edit.Drop) > 0 || len(edit.Set) != 1 || edit.Row != nil {
		return cannotMend("of feedback %s alone can be set", labelName)
	}
	text, err := s.letterLabel(edit.Set)
	if err != nil {
		return err
	}
	if l.Kind == collector.KindFeedback {
		f, err := collector.DecodeFeedback(l.Payload)
		if err != nil {
			return err
		}
		f.Label = text
		l.Payload = collector.AppendFeedback(nil, f)
		return nil
	}
	p, err := collector.DecodePrediction(l.Payload)
	if err != nil {
		return err
	}
	p.Label = text
	l.Payload = collector.AppendPrediction(nil, p)
	return nil
}

func (s *server) letterLabel(set map[string]string) (string, error) {
	text := set[labelName]
	if text == "" || len(text) > maxLetterText {
		return "", cannotMend("a label is of 1 to %d bytes", maxLetterText)
	}
	return s.capturer.Clean(text), nil
}

// setFeature gives a feature another value in one row, or with nil the one that stands for
// a missing one. A private feature gets none: what it may be kept as is made where the
// prediction is, of a value that is not here.
func (s *server) setFeature(p *collector.Prediction, schema *collector.Schema, i, row int, text *string) error {
	array, at, ok := collector.FieldPosition(schema.Features, i)
	if !ok {
		return cannotMend("it has no such feature, or one whose values differ in number: leave out all features instead")
	}
	f := &schema.Features[i]
	if f.Private != collector.PrivacyNone {
		return cannotMend("feature %q is private (%s) and cannot be changed: leave out all features instead", f.Name, f.Private)
	}
	if text != nil && f.Elements != 1 {
		return cannotMend("feature %q is %d values and not one", f.Name, f.Elements)
	}
	done := false
	var err error
	switch array {
	case "F32":
		done, err = setCells(p.Features.F32, p.Rows, row, at, f, text, float32(math.NaN()), func(v any) float32 { n, _ := v.(float64); return float32(n) })
	case "F64":
		done, err = setCells(p.Features.F64, p.Rows, row, at, f, text, math.NaN(), func(v any) float64 { n, _ := v.(float64); return n })
	case "I64":
		if text == nil {
			return cannotMend("feature %q is an integer, of which none stands for a missing one", f.Name)
		}
		done, err = setCells(p.Features.I64, p.Rows, row, at, f, text, 0, func(v any) int64 { n, _ := v.(int64); return n })
	case "Str":
		if text != nil && len(*text) > maxLetterText {
			return cannotMend("a text has at most %d bytes", maxLetterText)
		}
		done, err = setCells(p.Features.Str, p.Rows, row, at, f, text, "", func(v any) string { t, _ := v.(string); return s.capturer.Clean(t) })
	}
	if err == nil && !done {
		err = cannotMend("its features are not kept")
	}
	p.Capture = collector.CaptureRedacted
	return err
}

// setCells sets a field's cells in a row of an array. done is false where there are none.
func setCells[T any](array []T, rows, row, at int, f *collector.Field, text *string, missing T, of func(any) T) (done bool, err error) {
	width := len(array) / rows
	if width < at+f.Elements {
		return false, nil
	}
	value := missing
	if text != nil {
		v, err := parseValue(f, *text)
		if err != nil {
			return false, err
		}
		value = of(v)
	}
	for k := range f.Elements {
		array[row*width+at+k] = value
	}
	return true, nil
}

// parseValue reads a value of a field: float64, int64 or string. A category goes by its
// name where the schema has names.
func parseValue(f *collector.Field, text string) (any, error) {
	bad := cannotMend("what feature %q is to be is no %v", f.Name, f.DType)
	if f.DType == engine.String {
		return text, nil
	}
	if len(f.Categories) > 0 {
		i := slices.Index(f.Categories, text)
		if i < 0 {
			return nil, cannotMend("what feature %q is to be is none of its categories", f.Name)
		}
		text = strconv.Itoa(i)
	}
	switch f.DType {
	case engine.Float16, engine.BFloat16, engine.Float32, engine.Float64:
		bits := 32
		if f.DType == engine.Float64 {
			bits = 64
		}
		v, err := strconv.ParseFloat(text, bits)
		if err != nil {
			return nil, bad
		}
		return v, nil
	case engine.Bool:
		v, err := strconv.ParseBool(text)
		if err != nil {
			return nil, bad
		}
		return map[bool]int64{true: 1}[v], nil
	case engine.Uint8, engine.Uint16, engine.Uint32, engine.Uint64:
		v, err := strconv.ParseUint(text, 10, 8*f.DType.Size())
		if err != nil {
			return nil, bad
		}
		return int64(v), nil // the bits, as they are kept
	case engine.Int8, engine.Int16, engine.Int32, engine.Int64:
		v, err := strconv.ParseInt(text, 10, 8*f.DType.Size())
		if err != nil {
			return nil, bad
		}
		return v, nil
	}
	return nil, bad
}
