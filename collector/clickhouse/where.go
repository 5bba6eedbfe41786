package clickhouse

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/engine"
)

// The filter grammar of `where=` and of segments:
//
//	or      = and { "or" and }
//	and     = unary { "and" unary }
//	unary   = "not" unary | "(" or ")" | test
//	test    = name op literal | name [ "not" ] "in" "(" literal { "," literal } ")" | name "is" [ "not" ] "null"
//	op      = "=" | "==" | "!=" | "<>" | "<" | "<=" | ">" | ">="
//	name    = letters, digits, "_" and "."  |  "..." with "" for one quote
//	literal = number | '...' with '' for one quote | true | false
//
// A name is a feature of the model, else a column of the record, else an output of
// the model; "prediction." before it always means the column, "output." the output. One
// value of an output of several is "name[0]", in quotes. A missing value fails every
// comparison and is found by "is null". Keywords are in any case.

// ErrWhere is wrapped by every error of a filter's text.
var ErrWhere = errors.New("bad filter")

// Bounds of a filter's text.
const (
	maxWhereBytes = 8192
	maxWhereDepth = 50
	maxWhereNodes = 500
	maxWhereList  = 1000
)

// predicate is a condition with its bound parameters.
type predicate struct {
	sql  string
	args []any
}

// valueKind is how a column or feature compares.
type valueKind uint8

const (
	kindNumber valueKind = iota
	kindText
	kindTime
)

// whereColumns are the record's own columns that a filter may name.
var whereColumns = map[string]struct {
	sql  string
	kind valueKind
}{
	"id": {"id", kindText}, "version": {"version", kindText}, "model": {"model", kindText}, "digest": {"digest", kindText},
	"route": {"route", kindText}, "trace_id": {"trace_id", kindText}, "span_id": {"span_id", kindText},
	"external_id": {"external_id", kindText}, "error": {"error", kindText}, "capture": {"capture", kindText},
	"decided": {"decided", kindText}, "bins_id": {"bins_id", kindText}, "insert_batch": {"insert_batch", kindText},
	"row": {"row", kindNumber}, "rows": {"rows", kindNumber}, "status": {"status", kindNumber}, "score": {"score", kindNumber},
	"weight": {"weight", kindNumber}, "attempts": {"length(attempt_status)", kindNumber}, "latency_ms": {"(total_ns / 1000000)", kindNumber},
	"time": {"time", kindTime}, "received_at": {"received_at", kindTime},
}

// CheckWhere reports whether text is a filter that the given schemas can answer;
// the error wraps ErrWhere.
func CheckWhere(text string, schemas ...*collector.Schema) error {
	_, err := compileWhere(text, schemas)
	return err
}

// compileWhere parses text and compiles it. Features are looked up in every
// schema, as versions of a model may differ. Empty text is no condition.
func compileWhere(text string, schemas []*collector.Schema) (predicate, error) {
	return compileClear(text, schemas, nil)
}

// clearForms is for whoever names clear values, of which something else may be stored.
type clearForms struct {
	// field turns a clear value of a field that is private by hash into what may be
	// stored of it; id does so for a caller's id or a text of which patterns may have
	// hashed a part. Either may be nil.
	field func(f *collector.Field, value string) ([]string, error)
	id    func(value string) ([]string, error)
	// may has what cannot be known of a row taken for true: its features are not
	// stored, or the one named is in no form to compare.
	may bool
}

// compileClear is compileWhere for whoever names clear values; with a nil clearForms it
// takes what is stored.
func compileClear(text string, schemas []*collector.Schema, stored *clearForms) (predicate, error) {
	if strings.TrimSpace(text) == "" {
		return predicate{sql: "1"}, nil
	}
	if len(text) > maxWhereBytes {
		return predicate{}, fmt.Errorf("%w: longer than %d bytes", ErrWhere, maxWhereBytes)
	}
	tokens, err := lexWhere(text)
	if err != nil {
		return predicate{}, err
	}
	p := &whereParser{tokens: tokens, schemas: schemas, stored: stored}
	p.or(0)
	if p.err == nil && p.peek().kind != tokEnd {
		p.failf("unexpected %q at byte %d", p.peek().text, p.peek().at)
	}
	if p.err != nil {
		return predicate{}, p.err
	}
	return predicate{sql: p.out.String(), args: p.args}, nil
}

type tokenKind uint8

const (
	tokEnd tokenKind = iota
	tokName
	tokQuoted // a quoted name
	tokNumber
	tokText
	tokSymbol
)

type whereToken struct {
	kind tokenKind
	text string
	at   int
}

func lexWhere(s string) ([]whereToken, error) {
	if !utf8.ValidString(s) || strings.ContainsRune(s, 0) {
		return nil, fmt.Errorf("%w: not plain text", ErrWhere)
	}
	var out []whereToken
	for i := 0; i < len(s); {
		c := s[i]
		switch {
		case c == ' ' || c == '\t' || c == '\n' || c == '\r':
			i++
		case c == '\'' || c == '"':
			text, n, ok := lexQuoted(s[i:], c)
			if !ok {
				return nil, fmt.Errorf("%w: no end to the quote at byte %d", ErrWhere, i)
			}
			kind := tokText
			if c == '"' {
				kind = tokQuoted
			}
			out = append(out, whereToken{kind, text, i})
			i += n
		case nameByte(c) && !digit(c) && c != '.' || c >= utf8.RuneSelf:
			n := spanOf(s[i:], func(b byte) bool { return nameByte(b) || b >= utf8.RuneSelf })
			out = append(out, whereToken{tokName, s[i : i+n], i})
			i += n
		case digit(c) || (c == '-' || c == '+' || c == '.') && i+1 < len(s) && (digit(s[i+1]) || s[i+1] == '.'):
			n := 1 + spanNumber(s[i+1:])
			out = append(out, whereToken{tokNumber, s[i : i+n], i})
			i += n
		default:
			n := symbolLen(s[i:])
			if n == 0 {
				return nil, fmt.Errorf("%w: unexpected %q at byte %d", ErrWhere, string(c), i)
			}
			out = append(out, whereToken{tokSymbol, s[i : i+n], i})
			i += n
		}
	}
	return append(out, whereToken{tokEnd, "end", len(s)}), nil
}

func lexQuoted(s string, quote byte) (text string, n int, ok bool) {
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		if s[i] != quote {
			b.WriteByte(s[i])
			continue
		}
		if i+1 < len(s) && s[i+1] == quote {
			b.WriteByte(quote)
			i++
			continue
		}
		return b.String(), i + 1, true
	}
	return "", 0, false
}

func digit(c byte) bool { return c >= '0' && c <= '9' }

func nameByte(c byte) bool {
	return c == '_' || c == '.' || digit(c) || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

func spanOf(s string, in func(byte) bool) int {
	n := 0
	for n < len(s) && in(s[n]) {
		n++
	}
	return n
}

func spanNumber(s string) int {
	n := 0
	for n < len(s) {
		c := s[n]
		sign := (c == '-' || c == '+') && n > 0 && (s[n-1] == 'e' || s[n-1] == 'E')
		if !digit(c) && c != '.' && c != 'e' && c != 'E' && !sign {
			break
		}
		n++
	}
	return n
}

func symbolLen(s string) int {
	for _, two := range []string{"<=", ">=", "!=", "<>", "=="} {
		if strings.HasPrefix(s, two) {
			return 2
		}
	}
	if strings.IndexByte("=<>(),", s[0]) >= 0 {
		return 1
	}
	return 0
}

// whereParser compiles while it parses; the first error stops it.
type whereParser struct {
	tokens  []whereToken
	i       int
	nodes   int
	schemas []*collector.Schema
	stored  *clearForms // nil outside of compileClear
	negated bool        // within an odd number of nots
	out     strings.Builder
	args    []any
	err     error
}

func (p *whereParser) failf(format string, args ...any) {
	if p.err == nil {
		p.err = fmt.Errorf("%w: "+format, append([]any{ErrWhere}, args...)...)
	}
}

func (p *whereParser) peek() whereToken { return p.tokens[p.i] }

func (p *whereParser) next() whereToken {
	t := p.tokens[p.i]
	if t.kind != tokEnd {
		p.i++
	}
	return t
}

// keyword consumes that word if it comes next.
func (p *whereParser) keyword(word string) bool {
	t := p.peek()
	if t.kind != tokName || !strings.EqualFold(t.text, word) {
		return false
	}
	p.next()
	return true
}

func (p *whereParser) symbol(s string) bool {
	t := p.peek()
	if t.kind != tokSymbol || t.text != s {
		return false
	}
	p.next()
	return true
}

func (p *whereParser) or(depth int) {
	p.out.WriteByte('(')
	p.and(depth)
	for p.err == nil && p.keyword("or") {
		p.out.WriteString(" OR ")
		p.and(depth)
	}
	p.out.WriteByte(')')
}

func (p *whereParser) and(depth int) {
	p.unary(depth)
	for p.err == nil && p.keyword("and") {
		p.out.WriteString(" AND ")
		p.unary(depth)
	}
}

func (p *whereParser) unary(depth int) {
	if p.nodes++; p.nodes > maxWhereNodes || depth > maxWhereDepth {
		p.failf("too large or too deep")
	}
	if p.err != nil {
		return
	}
	switch {
	case p.keyword("not"):
		p.out.WriteString("(NOT ")
		p.negated = !p.negated
		p.unary(depth + 1)
		p.negated = !p.negated
		p.out.WriteByte(')')
	case p.symbol("("):
		p.or(depth + 1)
		if p.err == nil && !p.symbol(")") {
			p.failf("no ) before %q at byte %d", p.peek().text, p.peek().at)
		}
	default:
		p.test()
	}
}

func (p *whereParser) test() {
	t := p.next()
	if t.kind != tokName && t.kind != tokQuoted {
		p.failf("a name is wanted, not %q at byte %d", t.text, t.at)
		return
	}
	v, ok := p.resolve(t)
	if !ok {
		p.failf("unknown name %q", t.text)
		return
	}
	switch {
	case p.keyword("is"):
		not := p.keyword("not")
		if !p.keyword("null") {
			p.failf("null is wanted after is, not %q", p.peek().text)
			return
		}
		p.null(v, not)
	case p.keyword("in"):
		p.in(v, false)
	case p.keyword("not"):
		if !p.keyword("in") {
			p.failf("in is wanted after not, not %q", p.peek().text)
			return
		}
		p.in(v, true)
	default:
		p.compare(v)
	}
}

// operand is one way to read a name: the whole of it for a column, one for each
// schema that has the feature.
type operand struct {
	schemaID string // of a feature
	sql      string
	kind     valueKind
	narrow   bool // a float32, against which numbers are compared as float32
	whole    bool // an integer, which is never missing
	output   bool // stored also where features are not
	codes    []string
	values   *engine.Feature // of which a number is the category of that value, not a code
	// forms turns a clear value into what may be stored of it; hash says that this has
	// no order.
	forms func(value string) ([]string, error)
	hash  bool
	// blind says why what is stored cannot be compared with anything.
	blind string
	text  bool // that patterns may have taken something out of
	name  string
}

func (p *whereParser) resolve(t whereToken) ([]operand, bool) {
	name := t.text
	column, forced := strings.CutPrefix(name, "prediction.")
	if !forced || t.kind == tokQuoted {
		if ops := p.features(name); len(ops) > 0 {
			return ops, true
		}
	}
	c, ok := whereColumns[column]
	if !ok {
		ops := p.outputs(strings.TrimPrefix(name, outputPrefix))
		return ops, len(ops) > 0
	}
	op := operand{sql: c.sql, kind: c.kind, name: column}
	if column == "external_id" && p.stored != nil {
		op.forms = p.stored.id
	}
	return []operand{op}, true
}

func (p *whereParser) features(name string) []operand {
	var out []operand
	for _, s := range p.schemas {
		i := slices.IndexFunc(s.Features, func(f collector.Field) bool { return f.Name == name })
		if i < 0 {
			continue
		}
		f := &s.Features[i]
		array, at, ok := collector.FieldPosition(s.Features, i)
		if !ok || f.Elements != 1 {
			if p.stored != nil {
				out = append(out, operand{schemaID: s.ID, name: name, blind: cmp.Or(string(f.Private), "a tensor")})
			}
			continue
		}
		out = append(out, p.element(operand{schemaID: s.ID, name: name}, f, array, strings.ToLower(array), at))
	}
	return out
}

// outputPrefix before a name always means an output.
const outputPrefix = "output."

// outputs are the ways to read an output, or one value of it.
func (p *whereParser) outputs(name string) []operand {
	var out []operand
	for _, s := range p.schemas {
		i, k := outputNamed(s.Outputs, name)
		if i < 0 {
			continue
		}
		f := &s.Outputs[i]
		op := operand{schemaID: s.ID, name: name, output: true}
		array, at, ok := collector.FieldPosition(s.Outputs, i)
		switch {
		case !ok:
			op.blind = cmp.Or(string(f.Private), "its size varies")
		case k < 0 && f.Elements != 1:
			op.blind = fmt.Sprintf("it is %d values: name one, as \"%s[0]\"", f.Elements, f.Name)
		default:
			op = p.element(op, f, array, "out_"+strings.ToLower(array), at+max(k, 0))
		}
		out = append(out, op)
	}
	return out
}

// outputNamed finds an output by its name, or by one of its values, "name[k]"; k is -1
// for the whole of it, i where there is none.
func outputNamed(fields []collector.Field, name string) (i, k int) {
	if i = slices.IndexFunc(fields, func(f collector.Field) bool { return f.Name == name }); i >= 0 {
		return i, -1
	}
	base, k, ok := indexed(name)
	if !ok {
		return -1, -1
	}
	return slices.IndexFunc(fields, func(f collector.Field) bool { return f.Name == base && k < f.Elements }), k
}

// indexed splits "name[k]".
func indexed(name string) (base string, k int, ok bool) {
	at := strings.LastIndexByte(name, '[')
	if at < 0 || !strings.HasSuffix(name, "]") {
		return "", 0, false
	}
	k, err := strconv.Atoi(name[at+1 : len(name)-1])
	return name[:at], k, err == nil && k >= 0
}

// element completes an operand that is the value at a place of an array.
func (p *whereParser) element(op operand, f *collector.Field, array, column string, at int) operand {
	// An index beyond the array (features not stored) reads the type's
	// zero, so the length is part of the condition.
	op.sql, op.codes = column+"["+strconv.Itoa(at+1)+"]", f.Categories
	if feature := (&engine.Feature{Categories: f.Categories}); feature.TakesValues() {
		op.values = feature
	}
	switch array {
	case "Str":
		op.kind = kindText
		p.clear(&op, f)
	case "F32":
		op.narrow = true
	case "I64":
		if op.whole = true; f.DType == engine.Uint64 {
			op.sql = "reinterpretAsUInt64(" + op.sql + ")"
		}
	}
	return op
}

// clear says what may be stored of a text's clear value. What is sealed or masked is
// not to be compared with anything, by whoever: a ciphertext has an order too.
func (p *whereParser) clear(op *operand, f *collector.Field) {
	switch {
	case f.Private == collector.PrivacySeal || f.Private == collector.PrivacyMask:
		op.blind = string(f.Private)
	case f.Private == collector.PrivacyHash:
		op.hash = true
		if p.stored != nil && p.stored.field != nil {
			op.forms = func(v string) ([]string, error) { return p.stored.field(f, v) }
		}
	case f.Private == collector.PrivacyNone && p.stored != nil:
		op.forms, op.text = p.stored.id, true
	}
}

// noFeatures holds for a row whose features are not stored: sampled out, cut, of a
// request that was refused.
const noFeatures = "(empty(f32) AND empty(f64) AND empty(i64) AND empty(str))"

// unknown adds the rows of which a test of these operands cannot be known.
func (p *whereParser) unknown(ops []operand, compares bool) {
	if p.stored == nil || !p.stored.may || p.negated || ops[0].schemaID == "" {
		return
	}
	if !ops[0].output {
		p.out.WriteString(" OR " + noFeatures)
	}
	for _, op := range ops {
		switch {
		case op.blind != "" && (compares || op.sql == ""):
			p.out.WriteString(" OR schema_id = ?")
			p.args = append(p.args, op.schemaID)
		case op.text && compares:
			p.out.WriteString(" OR schema_id = ? AND capture = ?")
			p.args = append(p.args, op.schemaID, collector.CaptureRedacted)
		}
	}
}

// seen refuses operands of which none can be compared with a value.
func (p *whereParser) seen(ops []operand) bool {
	if slices.ContainsFunc(ops, func(o operand) bool { return o.blind == "" }) {
		return true
	}
	p.failf("%q is stored in no form that a value can be compared with (%s)", ops[0].name, ops[0].blind)
	return false
}

// each writes the alternatives of a name, one a schema.
func (p *whereParser) each(ops []operand, compares bool, write func(operand)) {
	p.out.WriteByte('(')
	defer func() {
		p.unknown(ops, compares)
		p.out.WriteByte(')')
	}()
	for i, op := range ops {
		if i > 0 {
			p.out.WriteString(" OR ")
		}
		if op.schemaID == "" {
			write(op)
			continue
		}
		if op.blind != "" && (compares || op.sql == "") {
			p.out.WriteByte('0')
			continue
		}
		column, _, _ := strings.Cut(strings.TrimPrefix(op.sql, "reinterpretAsUInt64("), "[")
		p.out.WriteString("(schema_id = ? AND notEmpty(" + column + ") AND ")
		p.args = append(p.args, op.schemaID)
		write(op)
		p.out.WriteByte(')')
	}
}

func (p *whereParser) null(ops []operand, not bool) {
	p.each(ops, false, func(op operand) {
		sql := "isNaN(" + op.sql + ")"
		switch {
		case op.kind == kindText:
			sql = op.sql + " = ''"
		case op.kind == kindTime || op.whole:
			sql = "0" // never missing
		}
		if not {
			sql = "NOT " + sql
		}
		p.out.WriteString(sql)
	})
}

func (p *whereParser) compare(ops []operand) {
	t := p.next()
	op, ok := map[string]string{"=": "=", "==": "=", "!=": "!=", "<>": "!=", "<": "<", "<=": "<=", ">": ">", ">=": ">="}[t.text]
	if t.kind != tokSymbol || !ok {
		p.failf("a comparison is wanted, not %q at byte %d", t.text, t.at)
		return
	}
	lit := p.next()
	if !p.seen(ops) {
		return
	}
	p.each(ops, true, func(o operand) {
		equality := op == "=" || op == "!="
		if o.hash && !equality {
			p.failf("%q is stored as a hash, which has no order", o.name)
			return
		}
		if o.forms != nil && equality {
			p.member(o, []whereToken{lit}, op == "!=")
			return
		}
		if o.values != nil && lit.kind == tokNumber && !equality {
			p.ordered(o, op, lit)
			return
		}
		marker := p.literal(o, lit)
		p.out.WriteString(o.sql + " " + op + " " + marker)
		if op == "!=" || o.kind == kindText && !equality { // a missing text is less than any
			p.out.WriteString(" AND NOT ")
			p.missing(o)
		}
	})
}

// ordered compares the values of categories that are numbers, whose codes have another
// order. One that the model has not seen has no value.
func (p *whereParser) ordered(o operand, op string, lit whereToken) {
	want, err := strconv.ParseFloat(lit.text, 64)
	if err != nil {
		p.failf("%q is not a number", lit.text)
		return
	}
	var codes []string
	for i := range o.values.Categories {
		if v, ok := o.values.Value(i); ok && holds(op, cmp.Compare(v, want)) == Yes {
			codes = append(codes, strconv.Itoa(i))
		}
	}
	if len(codes) == 0 {
		p.out.WriteByte('0')
		return
	}
	p.out.WriteString(o.sql + " IN (" + strings.Join(codes, ", ") + ")")
}

// missing writes the condition that the operand is missing.
func (p *whereParser) missing(o operand) {
	switch o.kind {
	case kindText:
		p.out.WriteString(o.sql + " = ''")
	case kindTime:
		p.out.WriteByte('0')
	default:
		p.out.WriteString("isNaN(" + o.sql + ")")
	}
}

func (p *whereParser) in(ops []operand, not bool) {
	if !p.symbol("(") {
		p.failf("( is wanted after in, not %q", p.peek().text)
		return
	}
	var list []whereToken
	for {
		list = append(list, p.next())
		if len(list) > maxWhereList {
			p.failf("more than %d values in a list", maxWhereList)
			return
		}
		if p.symbol(",") {
			continue
		}
		if !p.symbol(")") {
			p.failf("no ) before %q at byte %d", p.peek().text, p.peek().at)
			return
		}
		break
	}
	if !p.seen(ops) {
		return
	}
	p.each(ops, true, func(o operand) { p.member(o, list, not) })
}

// member writes that an operand is one of a list, or present and none of it.
func (p *whereParser) member(o operand, list []whereToken, not bool) {
	var markers []string
	for _, lit := range list {
		if o.forms == nil {
			markers = append(markers, p.literal(o, lit))
			continue
		}
		if lit.kind != tokNumber && lit.kind != tokText {
			p.failf("a value is wanted, not %q at byte %d", lit.text, lit.at)
			return
		}
		values, err := o.forms(lit.text)
		if err != nil {
			p.failf("%v", err)
			return
		}
		for _, v := range values {
			markers, p.args = append(markers, "?"), append(p.args, v)
		}
	}
	word := " IN ("
	if not {
		word = " NOT IN ("
	}
	p.out.WriteString(o.sql + word + strings.Join(markers, ", ") + ")")
	if not {
		p.out.WriteString(" AND NOT ")
		p.missing(o)
	}
}

// literal binds one literal for an operand and returns its marker.
func (p *whereParser) literal(o operand, t whereToken) string {
	if t.kind == tokName && (strings.EqualFold(t.text, "true") || strings.EqualFold(t.text, "false")) {
		t = whereToken{tokNumber, map[bool]string{true: "1", false: "0"}[strings.EqualFold(t.text, "true")], t.at}
	}
	switch {
	case t.kind != tokNumber && t.kind != tokText:
		p.failf("a value is wanted, not %q at byte %d", t.text, t.at)
	case o.kind == kindText:
		p.args = append(p.args, t.text)
		return "?"
	case o.kind == kindTime:
		return p.timeLiteral(t)
	case t.kind == tokText && o.codes != nil:
		// A category by its name; one the model does not have equals nothing.
		p.args = append(p.args, float64(slices.Index(o.codes, t.text)))
		return "?"
	case o.values != nil:
		return p.category(o, t)
	case t.kind == tokText:
		p.failf("%q is text, but the name before it is a number", t.text)
	default:
		return p.numberLiteral(o, t)
	}
	return "0"
}

// category binds the code of the category that a number is, or what equals nothing.
func (p *whereParser) category(o operand, t whereToken) string {
	v, err := strconv.ParseFloat(t.text, 64)
	if err != nil {
		p.failf("%q is not a number", t.text)
		return "0"
	}
	code, ok := o.values.Category(v)
	if !ok {
		code = -1
	}
	p.args = append(p.args, float64(code))
	return "?"
}

func (p *whereParser) numberLiteral(o operand, t whereToken) string {
	if n, err := strconv.ParseInt(t.text, 10, 64); err == nil && !o.narrow {
		p.args = append(p.args, n)
		return "?"
	}
	x, err := strconv.ParseFloat(t.text, 64)
	if err != nil {
		p.failf("%q is not a number", t.text)
		return "0"
	}
	p.args = append(p.args, x)
	if o.narrow {
		return "toFloat32(?)"
	}
	return "?"
}

func (p *whereParser) timeLiteral(t whereToken) string {
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02 15:04:05", "2006-01-02"} {
		if at, err := time.Parse(layout, t.text); err == nil && t.kind == tokText {
			p.args = append(p.args, at.UnixMicro())
			return "fromUnixTimestamp64Micro(?, 'UTC')"
		}
	}
	p.failf("%q is not a time like '2006-01-02T15:04:05Z'", t.text)
	return "0"
}
