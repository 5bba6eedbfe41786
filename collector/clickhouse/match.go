package clickhouse

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/engine"
)

// Verdict is whether something outside of the tables is a subject's.
type Verdict uint8

// The verdicts. They are ordered: "and" is the least, "or" the greatest.
const (
	No    Verdict = iota
	Maybe         // it cannot be known
	Yes
)

// Outside is one row that is in no table: a dead letter's, or of half a prediction.
type Outside struct {
	// Columns are the record's own by the names of the filter grammar: strings,
	// numbers, times. One that is not there is not known.
	Columns map[string]any
	// Features by name, nil where one is missing, as Fields say that they are kept;
	// without Fields they are the caller's.
	Features map[string]any
	Fields   []collector.Field
	// Outputs by name, a list for one of several values; nil while they are not known.
	// OutputFields are those of the version.
	Outputs      map[string]any
	OutputFields []collector.Field
	// Redacted says that patterns took something out of texts.
	Redacted bool
}

// Matches evaluates the subject's filter over a row as the tables would. The error is
// the filter's.
func (x *Subject) Matches(row *Outside) (Verdict, error) {
	if len(x.Where) > maxWhereBytes {
		return No, fmt.Errorf("%w: longer than %d bytes", ErrWhere, maxWhereBytes)
	}
	tokens, err := lexWhere(x.Where)
	if err != nil {
		return No, err
	}
	m := &matcher{whereParser: whereParser{tokens: tokens, stored: x.clear(false)}, row: row}
	v := m.or(0)
	if m.err == nil && m.peek().kind != tokEnd {
		m.failf("unexpected %q at byte %d", m.peek().text, m.peek().at)
	}
	return v, m.err
}

// ExternalForms are the forms in which the subject's own id may be kept.
func (x *Subject) ExternalForms() ([]string, error) { return x.externalIDs() }

// InBytes looks for the subject's id in a record that nobody understands.
func (x *Subject) InBytes(payload []byte) (Verdict, error) {
	texts, err := x.texts()
	if err != nil || len(texts) == 0 {
		return Maybe, err
	}
	for _, text := range texts {
		if strings.Contains(string(payload), string(text)) {
			return Yes, nil
		}
	}
	return No, nil
}

// HasPredictions returns those of the ids (a request's, or one row's) whose predictions
// were found.
func (e *Erasure) HasPredictions(ctx context.Context, ids []string) (map[string]bool, error) {
	out := map[string]bool{}
	for part := range slices.Chunk(ids, 1000) {
		found, err := e.found.s.strings(ctx, "SELECT DISTINCT id FROM "+e.found.list(targets[0])+" WHERE id IN (?)"+
			" UNION DISTINCT SELECT concat(id, '.', toString(row)) AS own FROM "+e.found.list(targets[0])+" WHERE own IN (?)", part, part)
		if err != nil {
			return nil, err
		}
		for _, id := range found {
			out[id] = true
		}
	}
	return out, nil
}

// matcher is whereParser for one row: it evaluates while it parses.
type matcher struct {
	whereParser
	row *Outside
}

func (m *matcher) or(depth int) Verdict {
	v := m.and(depth)
	for m.err == nil && m.keyword("or") {
		v = max(v, m.and(depth))
	}
	return v
}

func (m *matcher) and(depth int) Verdict {
	v := m.unary(depth)
	for m.err == nil && m.keyword("and") {
		v = min(v, m.unary(depth))
	}
	return v
}

func (m *matcher) unary(depth int) Verdict {
	if m.nodes++; m.nodes > maxWhereNodes || depth > maxWhereDepth {
		m.failf("too large or too deep")
	}
	switch {
	case m.err != nil:
		return No
	case m.keyword("not"):
		return Yes - m.unary(depth+1)
	case m.symbol("("):
		v := m.or(depth + 1)
		if m.err == nil && !m.symbol(")") {
			m.failf("no ) before %q at byte %d", m.peek().text, m.peek().at)
		}
		return v
	}
	return m.test()
}

func (m *matcher) test() Verdict {
	t := m.next()
	if t.kind != tokName && t.kind != tokQuoted {
		m.failf("a name is wanted, not %q at byte %d", t.text, t.at)
		return No
	}
	v := m.value(t)
	not := false
	switch {
	case m.keyword("is"):
		not = m.keyword("not")
		if !m.keyword("null") {
			m.failf("null is wanted after is, not %q", m.peek().text)
		}
		return v.null(not)
	case m.keyword("not"):
		if not = true; !m.keyword("in") {
			m.failf("in is wanted after not, not %q", m.peek().text)
			return No
		}
	case !m.keyword("in"):
		op, lit := m.next().text, m.next()
		return m.compare(v, op, lit)
	}
	return m.in(v, not)
}

// value is what a name stands for in the row.
type value struct {
	known bool
	is    any // nil where it is missing
	field *collector.Field
	texts bool // patterns may have taken something out of it
	own   bool // a caller's id
}

func (m *matcher) value(t whereToken) value {
	column, forced := strings.CutPrefix(t.text, "prediction.")
	if !forced || t.kind == tokQuoted {
		v := value{}
		if i := slices.IndexFunc(m.row.Fields, func(f collector.Field) bool { return f.Name == t.text }); i >= 0 {
			v.field = &m.row.Fields[i]
		}
		is, there := m.row.Features[t.text]
		if there || v.field != nil {
			v.is, v.known, v.texts = is, there, v.field == nil || v.field.Private == collector.PrivacyNone
			return v
		}
	}
	is, there := m.row.Columns[column]
	if _, ours := whereColumns[column]; !ours {
		return m.output(strings.TrimPrefix(t.text, outputPrefix))
	}
	return value{is: is, known: there, own: column == "external_id"}
}

// output is what stands under the name of an output, or of one value of it.
func (m *matcher) output(name string) value {
	v := value{}
	i, k := outputNamed(m.row.OutputFields, name)
	if i >= 0 {
		v.field = &m.row.OutputFields[i]
		name = v.field.Name
	} else if base, at, ok := indexed(name); ok && m.row.Outputs[name] == nil {
		name, k = base, at
	}
	is, there := m.row.Outputs[name]
	if list, many := is.([]any); many && k >= 0 && k < len(list) {
		is = list[k]
	}
	// Numbers that JSON cannot hold are written out.
	if text, is := is.(string); is && (v.field == nil || v.field.DType.IsFloat()) && text == "NaN" {
		return value{known: true, field: v.field}
	}
	if v.field != nil && v.field.DType.IsFloat() {
		switch is {
		case "Infinity":
			is = math.Inf(1)
		case "-Infinity":
			is = math.Inf(-1)
		}
	}
	switch v.is = is; {
	case there:
		v.known, v.texts = true, v.field == nil || v.field.Private == collector.PrivacyNone
	case i >= 0:
		v.known = m.row.Outputs != nil // of a request that failed
	default:
		v.known = m.row.Features != nil // the row is of a version without it
	}
	return v
}

func (v value) null(not bool) Verdict {
	missing := v.is == nil || v.is == ""
	switch {
	case !v.known:
		return Maybe
	case missing != not:
		return Yes
	}
	return No
}

func (m *matcher) in(v value, not bool) Verdict {
	if !m.symbol("(") {
		m.failf("( is wanted after in, not %q", m.peek().text)
		return No
	}
	best, n := No, 0
	for {
		if n++; n > maxWhereList {
			m.failf("more than %d values in a list", maxWhereList)
			return No
		}
		best = max(best, m.compare(v, "=", m.next()))
		if m.symbol(",") {
			continue
		}
		if m.err == nil && !m.symbol(")") {
			m.failf("no ) before %q at byte %d", m.peek().text, m.peek().at)
		}
		break
	}
	switch {
	case !not:
		return best
	case v.known && (v.is == nil || v.is == ""):
		return No // a missing value fails every comparison
	}
	return Yes - best
}

func (m *matcher) compare(v value, op string, lit whereToken) Verdict {
	if lit.kind == tokName && (strings.EqualFold(lit.text, "true") || strings.EqualFold(lit.text, "false")) {
		lit = whereToken{tokNumber, map[bool]string{true: "1", false: "0"}[strings.EqualFold(lit.text, "true")], lit.at}
	}
	if m.err == nil && lit.kind != tokNumber && lit.kind != tokText {
		m.failf("a value is wanted, not %q at byte %d", lit.text, lit.at)
	}
	switch {
	case m.err != nil:
		return No
	case !v.known:
		return Maybe
	case v.is == nil || v.is == "":
		if lit.kind == tokText && lit.text == "" && (op == "=" || op == "==") {
			return Yes
		}
		return No
	case v.field != nil && (v.field.Private == collector.PrivacySeal || v.field.Private == collector.PrivacyMask):
		return Maybe
	}
	if feature := v.valued(); feature != nil && lit.kind == tokNumber {
		return v.category(feature, op, lit)
	}
	switch is := v.is.(type) {
	case string:
		return m.text(v, is, op, lit)
	case time.Time:
		p := whereParser{}
		if p.timeLiteral(lit); p.err != nil {
			m.err = p.err
			return No
		}
		return holds(op, cmp.Compare(is.UnixMicro(), p.args[0].(int64))) //nolint:forcetypeassert // what timeLiteral binds
	}
	return numeral(v.is, op, lit)
}

// valued is the feature whose categories are numbers, where the value is of one.
func (v value) valued() *engine.Feature {
	if v.field == nil {
		return nil
	}
	feature := &engine.Feature{Categories: v.field.Categories}
	if !feature.TakesValues() {
		return nil
	}
	return feature
}

// category compares a category that is a number by its value. What the model has not seen
// equals none, and has no order.
func (v value) category(feature *engine.Feature, op string, lit whereToken) Verdict {
	switch is := v.is.(type) {
	case json.Number:
		return numeral(is, op, lit) // as the caller wrote it
	case string:
		if x, ok := feature.Value(slices.Index(feature.Categories, is)); ok {
			return numeral(x, op, lit)
		}
	}
	return map[bool]Verdict{true: Yes, false: No}[op == "!=" || op == "<>"]
}

// text compares a text, or the name of a category.
func (m *matcher) text(v value, is, op string, lit whereToken) Verdict {
	forms := []string{lit.text}
	var err error
	switch {
	case v.field != nil && v.field.Categories != nil && lit.kind == tokNumber:
		return numeral(float64(slices.Index(v.field.Categories, is)), op, lit)
	case v.field != nil && v.field.Private == collector.PrivacyHash && m.stored.field != nil:
		forms, err = m.stored.field(v.field, lit.text)
	case (v.texts && v.field != nil || v.own) && m.stored.id != nil:
		forms, err = m.stored.id(lit.text)
	}
	if err != nil {
		m.failf("%v", err)
		return No
	}
	equal := No
	switch {
	case slices.Contains(forms, is):
		equal = Yes
	case v.texts && m.row.Redacted:
		equal = Maybe
	}
	switch op {
	case "=", "==":
		return equal
	case "!=", "<>":
		return Yes - equal
	}
	if equal == Maybe || v.field != nil && v.field.Private == collector.PrivacyHash {
		return Maybe
	}
	return holds(op, cmp.Compare(is, lit.text))
}

// numeral compares a number with a literal, in its own type.
func numeral(is any, op string, lit whereToken) Verdict {
	want, err := strconv.ParseFloat(lit.text, 64)
	if err != nil || lit.kind != tokNumber {
		return Maybe
	}
	whole, notWhole := strconv.ParseInt(lit.text, 10, 64)
	switch x := is.(type) {
	case bool:
		return numeral(map[bool]int64{true: 1}[x], op, lit)
	case json.Number:
		if n, err := x.Int64(); err == nil {
			return numeral(n, op, lit)
		}
		f, err := x.Float64()
		if err != nil {
			return Maybe
		}
		if f != want && float32(f) == float32(want) {
			return Maybe // the same for a model that takes float32
		}
		return holds(op, cmp.Compare(f, want))
	case float32:
		return holds(op, cmp.Compare(x, float32(want)))
	case float64:
		if math.IsNaN(x) {
			return No
		}
		return holds(op, cmp.Compare(x, want))
	case int:
		return numeral(int64(x), op, lit)
	case int64:
		if notWhole == nil {
			return holds(op, cmp.Compare(x, whole))
		}
		return holds(op, cmp.Compare(float64(x), want))
	case uint64:
		if notWhole == nil && whole >= 0 {
			return holds(op, cmp.Compare(x, uint64(whole)))
		}
		return holds(op, cmp.Compare(float64(x), want))
	}
	return Maybe
}

func holds(op string, order int) Verdict {
	var is bool
	switch op {
	case "=", "==":
		is = order == 0
	case "!=", "<>":
		is = order != 0
	case "<":
		is = order < 0
	case "<=":
		is = order <= 0
	case ">":
		is = order > 0
	case ">=":
		is = order >= 0
	default:
		return Maybe // the tables refuse it
	}
	if is {
		return Yes
	}
	return No
}
