package xgboost

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"

	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/tree"
)

// member is one key of an object with the bytes of its value.
type member struct {
	key string
	raw []byte
}

// codec takes values of one of the two encodings apart and puts them together again,
// as bytes: what is not changed keeps every digit and type.
type codec interface {
	members(raw []byte) ([]member, error)
	object(m []member) []byte
	// items returns the elements of an array. Those of a typed array have that kind
	// and no marker; kind is 0 otherwise.
	items(raw []byte) (kind byte, items [][]byte, err error)
	array(kind byte, items [][]byte) []byte
	text(raw []byte) (string, error)
	quote(s string) []byte
	// integer and float write an element of an array of that kind.
	integer(kind byte, v int) []byte
	float(kind byte, v float64) []byte
	decode(raw []byte) (any, error)
}

// Cut writes the file in data with less in it: trees from the end left out, and
// subtrees become leaves. What stays, stays as it was written. The file must be one
// that Read takes, and cut fit the ensemble it makes.
func Cut(data []byte, cut tree.Cut) ([]byte, error) {
	m, err := Read(data)
	if err != nil {
		return nil, err
	}
	e, ok := tree.Held(m)
	if !ok {
		return nil, &engine.UnsupportedError{What: "cutting a model without trees"}
	}
	if err := cut.Check(e); err != nil {
		return nil, err
	}
	c, data := codecOf(data)
	w := &cutter{codec: c, cut: cut, ensemble: e}
	return w.within(data, w.booster, "learner", "gradient_booster")
}

// Round returns how many trees of the file in data are one boosting round: those of
// the first where the file tells (since 2.0), else one a parallel tree and output.
func Round(data []byte) (int, error) {
	decode := decodeUBJ
	if c, head := codecOf(data); c == (jsonCodec{}) {
		data, decode = head, decodeJSON
	}
	doc, err := decode(data)
	if err != nil {
		return 0, err
	}
	root, _ := doc.(object)
	model := root
	for _, key := range []string{"learner", "gradient_booster"} {
		if model, err = model.object(key); err != nil {
			return 0, err
		}
	}
	if inner, err := model.object("gbtree"); err == nil {
		model = inner
	}
	if model, err = model.object("model"); err != nil {
		return 0, err
	}
	if ends, err := model.numbers("iteration_indptr"); err == nil && ends.Len() > 1 {
		if n, ok := ends.Int(1); ok && n > 0 {
			return int(n), nil
		}
	}
	param, err := model.object("gbtree_model_param")
	if err != nil {
		return 0, err
	}
	parallel := 1
	if _, says := param["num_parallel_tree"]; says { // versions up to 1.3 do not
		if parallel, err = param.count("num_parallel_tree", tree.MaxNodes); err != nil {
			return 0, err
		}
	}
	outputs, err := model.numbers("tree_info")
	if err != nil {
		return 0, err
	}
	n := 1
	for i := range outputs.Len() {
		if v, ok := outputs.Int(i); ok {
			n = max(n, int(v)+1)
		}
	}
	return n * max(parallel, 1), nil
}

// codecOf tells the two encodings apart as Read does, and returns the document.
func codecOf(data []byte) (codec, []byte) {
	head := bytes.TrimLeft(data, " \t\r\n")
	if second := bytes.TrimLeft(head[min(1, len(head)):], " \t\r\n"); len(second) > 0 && (second[0] == '"' || second[0] == '}') {
		return jsonCodec{}, bytes.TrimRight(head, " \t\r\n")
	}
	return ubjCodec{}, data
}

type cutter struct {
	codec
	cut      tree.Cut
	ensemble *tree.Ensemble
	weights  numbers // of a DART booster
	rounds   int
}

// within replaces the value at a path of keys.
func (w *cutter) within(raw []byte, change func([]byte) ([]byte, error), path ...string) ([]byte, error) {
	if len(path) == 0 {
		return change(raw)
	}
	members, err := w.members(raw)
	if err != nil {
		return nil, err
	}
	found := false
	for i := range members {
		if members[i].key != path[0] {
			continue
		}
		found = true
		if members[i].raw, err = w.within(members[i].raw, change, path[1:]...); err != nil {
			return nil, err
		}
	}
	if !found {
		return nil, corruptf("%q is absent", path[0])
	}
	if path[0] == "gradient_booster" {
		if err := w.attributes(members); err != nil {
			return nil, err
		}
	}
	return w.object(members), nil
}

// attributes moves what early stopping noted back into the rounds that are left:
// XGBoost's own predict would ask for more than there are.
func (w *cutter) attributes(learner []member) error {
	for i := range learner {
		if learner[i].key != "attributes" || w.rounds == 0 {
			continue
		}
		inner, err := w.members(learner[i].raw)
		if err != nil {
			return err
		}
		for j := range inner {
			text, err := w.text(inner[j].raw)
			if inner[j].key != "best_iteration" || err != nil {
				continue
			}
			if best, err := strconv.Atoi(text); err == nil && best >= w.rounds {
				inner[j].raw = w.quote(strconv.Itoa(w.rounds - 1))
			}
		}
		learner[i].raw = w.object(inner)
	}
	return nil
}

// booster cuts a gbtree or dart booster.
func (w *cutter) booster(raw []byte) ([]byte, error) {
	members, err := w.members(raw)
	if err != nil {
		return nil, err
	}
	for i := range members {
		if members[i].key == "weight_drop" {
			if members[i].raw, err = w.drop(members[i].raw); err != nil {
				return nil, err
			}
		}
	}
	for i := range members {
		switch members[i].key {
		case "gbtree":
			members[i].raw, err = w.within(members[i].raw, w.model, "model")
		case "model":
			members[i].raw, err = w.model(members[i].raw)
		}
		if err != nil {
			return nil, err
		}
	}
	return w.object(members), nil
}

// drop notes the weights of the trees, and cuts their list.
func (w *cutter) drop(raw []byte) ([]byte, error) {
	doc, err := w.decode(raw)
	if err != nil {
		return nil, err
	}
	if w.weights, err = (object{"w": doc}).numbers("w"); err != nil {
		return nil, err
	}
	return w.first(raw)
}

// first keeps the elements of as many trees as stay.
func (w *cutter) first(raw []byte) ([]byte, error) {
	kind, items, err := w.items(raw)
	if err != nil {
		return nil, err
	}
	return w.array(kind, items[:min(w.cut.Keep, len(items))]), nil
}

func (w *cutter) model(raw []byte) ([]byte, error) {
	members, err := w.members(raw)
	if err != nil {
		return nil, err
	}
	for i := range members {
		if members[i].key == "weight_drop" {
			if members[i].raw, err = w.drop(members[i].raw); err != nil {
				return nil, err
			}
		}
	}
	for i := range members {
		m := &members[i]
		switch m.key {
		case "trees":
			m.raw, err = w.trees(m.raw)
		case "tree_info":
			m.raw, err = w.first(m.raw)
		case "iteration_indptr":
			m.raw, err = w.indptr(m.raw)
		case "gbtree_model_param":
			m.raw, err = w.within(m.raw, func([]byte) ([]byte, error) { return w.quote(strconv.Itoa(w.cut.Keep)), nil }, "num_trees")
		}
		if err != nil {
			return nil, fmt.Errorf("cut %s: %w", m.key, err)
		}
	}
	return w.object(members), nil
}

// indptr keeps the rounds whose trees stay.
func (w *cutter) indptr(raw []byte) ([]byte, error) {
	doc, err := w.decode(raw)
	if err != nil {
		return nil, err
	}
	ends, err := (object{"p": doc}).numbers("p")
	if err != nil {
		return nil, err
	}
	kind, items, err := w.items(raw)
	if err != nil {
		return nil, err
	}
	n := 0
	for n < ends.Len() && ends.At(n) <= float64(w.cut.Keep) {
		n++
	}
	if n == 0 || ends.At(n-1) != float64(w.cut.Keep) {
		return nil, fmt.Errorf("%d trees are no whole number of boosting rounds", w.cut.Keep)
	}
	w.rounds = n - 1
	return w.array(kind, items[:n]), nil
}

func (w *cutter) trees(raw []byte) ([]byte, error) {
	kind, items, err := w.items(raw)
	if err != nil {
		return nil, err
	}
	items = items[:w.cut.Keep]
	for i := range items {
		leaves := w.cut.Of(i)
		if len(leaves) == 0 {
			continue
		}
		weight := 1.0
		if w.weights.Len() > i {
			weight = float64(float32(w.weights.At(i)))
		}
		if items[i], err = w.tree(items[i], leaves, weight); err != nil {
			return nil, fmt.Errorf("tree %d: %w", i, err)
		}
	}
	return w.array(kind, items), nil
}

// treeCut is one tree on its way to fewer nodes.
type treeCut struct {
	*cutter
	reader treeReader
	// keep lists the file's node ids that stay, in their new order; place is the
	// reverse, -1 for those that go.
	keep, place []int32
	parent      []int32 // by new number
	value       map[int32]float64
}

func (w *cutter) tree(raw []byte, leaves map[int32][]float64, weight float64) ([]byte, error) {
	doc, err := w.decode(raw)
	if err != nil {
		return nil, err
	}
	o, ok := doc.(object)
	if !ok {
		return nil, corruptf("not an object")
	}
	t := &treeCut{cutter: w, reader: treeReader{o: o, learner: &learner{outputs: w.ensemble.Outputs}}, value: map[int32]float64{}}
	if err := t.reader.arrays(); err != nil {
		return nil, err
	}
	if t.reader.width > 1 {
		return nil, &engine.UnsupportedError{What: "cutting trees with vector leaves"}
	}
	order, _, err := t.reader.reachable()
	if err != nil {
		return nil, err
	}
	for at, v := range leaves {
		value := 0.0
		if weight != 0 {
			value = v[0] / weight
		}
		t.value[order[at]] = float64(float32(value))
	}
	t.number()
	members, err := w.members(raw)
	if err != nil {
		return nil, err
	}
	for i := range members {
		if members[i].raw, err = t.member(members[i]); err != nil {
			return nil, fmt.Errorf("%q: %w", members[i].key, err)
		}
	}
	return w.object(members), nil
}

// number walks from the root down to the leaves that are left.
func (t *treeCut) number() {
	t.place = slices.Repeat([]int32{-1}, t.reader.n)
	t.keep, t.parent = []int32{0}, []int32{math.MaxInt32}
	t.place[0] = 0
	for i := 0; i < len(t.keep); i++ {
		id := t.keep[i]
		if t.leaf(id) {
			continue
		}
		for _, children := range [2]numbers{t.reader.left, t.reader.right} {
			c, _ := children.Int(int(id))
			t.place[c] = int32(len(t.keep))
			t.keep = append(t.keep, c)
			t.parent = append(t.parent, int32(i))
		}
	}
}

// leaf reports whether a node is one now.
func (t *treeCut) leaf(id int32) bool {
	_, cut := t.value[id]
	return cut || t.reader.isLeaf(int(id))
}

// member writes one key of the tree.
func (t *treeCut) member(m member) ([]byte, error) {
	switch m.key {
	case "tree_param":
		return t.param(m.raw)
	case "categories_nodes", "categories_segments", "categories_sizes", "categories":
		return t.categories(m)
	}
	kind, items, err := t.items(m.raw)
	if err != nil || len(items) != t.reader.n {
		return m.raw, nil // a number of the tree, or an array of something else
	}
	out := make([][]byte, len(t.keep))
	for i, id := range t.keep {
		out[i] = t.element(m.key, kind, items, id, i)
	}
	return t.array(kind, out), nil
}

// element writes what one array says of the node with new number i.
func (t *treeCut) element(key string, kind byte, items [][]byte, id int32, i int) []byte {
	value, cut := t.value[id]
	switch key {
	case "left_children", "right_children":
		children := t.reader.left
		if key == "right_children" {
			children = t.reader.right
		}
		if t.leaf(id) {
			return t.integer(kind, -1)
		}
		c, _ := children.Int(int(id))
		return t.integer(kind, int(t.place[c]))
	case "parents":
		return t.integer(kind, int(t.parent[i]))
	case "split_conditions", "base_weights":
		if cut {
			return t.float(kind, value)
		}
	case "split_indices", "split_type":
		if cut {
			return t.integer(kind, 0)
		}
	case "default_left":
		if cut {
			return t.no(kind, items[id])
		}
	case "loss_changes":
		if cut {
			return t.float(kind, 0)
		}
	}
	return items[id]
}

// no writes false as an element was written; versions before 1.6 had booleans.
func (t *treeCut) no(kind byte, was []byte) []byte {
	if kind == 0 && len(was) > 0 {
		switch was[0] {
		case 't', 'f':
			return []byte("false")
		case 'T', 'F':
			return []byte{'F'}
		}
	}
	return t.integer(kind, 0)
}

// param writes the number of nodes, none of them deleted.
func (t *treeCut) param(raw []byte) ([]byte, error) {
	members, err := t.members(raw)
	if err != nil {
		return nil, err
	}
	for i := range members {
		switch members[i].key {
		case "num_nodes":
			members[i].raw = t.quote(strconv.Itoa(len(t.keep)))
		case "num_deleted":
			members[i].raw = t.quote("0")
		}
	}
	return t.object(members), nil
}

// categories writes the sets of the categorical splits that stay.
func (t *treeCut) categories(m member) ([]byte, error) {
	var all [3]numbers
	for i, key := range []string{"categories_nodes", "categories_segments", "categories_sizes"} {
		var err error
		if all[i], err = t.reader.o.optionalNumbers(key); err != nil {
			return nil, err
		}
	}
	nodes, segments, sizes := all[0], all[1], all[2]
	kind, items, err := t.items(m.raw)
	if err != nil {
		return nil, err
	}
	var out [][]byte
	begin := 0
	for _, i := range t.splits(nodes) {
		size, _ := sizes.Int(i)
		from, _ := segments.Int(i)
		id, _ := nodes.Int(i)
		switch m.key {
		case "categories_nodes":
			out = append(out, t.integer(kind, int(t.place[id])))
		case "categories_segments":
			out = append(out, t.integer(kind, begin))
		case "categories_sizes":
			out = append(out, items[i])
		default:
			if from < 0 || size < 0 || int(from)+int(size) > len(items) {
				return nil, corruptf("categories are out of range")
			}
			out = append(out, items[from:from+size]...)
		}
		begin += int(size)
	}
	return t.array(kind, out), nil
}

// splits lists the categorical splits that stay, by their nodes' new numbers, which
// is the order XGBoost wants.
func (t *treeCut) splits(nodes numbers) []int {
	var out []int
	for i := range nodes.Len() {
		id, ok := nodes.Int(i)
		if ok && id >= 0 && int(id) < len(t.place) && t.place[id] >= 0 && !t.leaf(id) {
			out = append(out, i)
		}
	}
	slices.SortFunc(out, func(a, b int) int {
		x, _ := nodes.Int(a)
		y, _ := nodes.Int(b)
		return int(t.place[x] - t.place[y])
	})
	return out
}

// jsonCodec is JSON.
type jsonCodec struct{}

func (jsonCodec) members(raw []byte) ([]member, error) {
	d := &jsonDecoder{data: raw}
	if d.peek() != '{' {
		return nil, d.errorf("no object")
	}
	d.pos++
	var out []member
	for d.peek() != '}' {
		key, err := d.text()
		if err != nil {
			return nil, err
		}
		if d.peek() != ':' {
			return nil, d.errorf("no colon after a key")
		}
		d.pos++
		d.peek()
		from := d.pos
		if _, err := d.value(1); err != nil {
			return nil, err
		}
		out = append(out, member{key, raw[from:d.pos:d.pos]})
		if d.peek() == ',' {
			d.pos++
			d.peek()
		}
	}
	return out, nil
}

func (c jsonCodec) object(m []member) []byte {
	out := []byte{'{'}
	for i := range m {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(append(append(out, c.quote(m[i].key)...), ':'), m[i].raw...)
	}
	return append(out, '}')
}

func (jsonCodec) items(raw []byte) (byte, [][]byte, error) {
	d := &jsonDecoder{data: raw}
	if d.peek() != '[' {
		return 0, nil, d.errorf("no array")
	}
	d.pos++
	var out [][]byte
	for d.peek() != ']' {
		from := d.pos
		if _, err := d.value(1); err != nil {
			return 0, nil, err
		}
		d.values = 0 // an array's numbers count as one value, as when it is read
		out = append(out, raw[from:d.pos:d.pos])
		if d.peek() == ',' {
			d.pos++
			d.peek()
		}
	}
	return 0, out, nil
}

func (jsonCodec) array(_ byte, items [][]byte) []byte {
	out := append([]byte{'['}, bytes.Join(items, []byte{','})...)
	return append(out, ']')
}

func (jsonCodec) text(raw []byte) (string, error) { return (&jsonDecoder{data: raw}).text() }

func (jsonCodec) quote(s string) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(s) // text into memory cannot fail
	return bytes.TrimRight(b.Bytes(), "\n")
}

func (jsonCodec) integer(_ byte, v int) []byte { return strconv.AppendInt(nil, int64(v), 10) }

func (jsonCodec) float(_ byte, v float64) []byte { return strconv.AppendFloat(nil, v, 'E', -1, 32) }

func (jsonCodec) decode(raw []byte) (any, error) { return decodeJSON(raw) }

// ubjCodec is Universal Binary JSON, in the form XGBoost writes it.
type ubjCodec struct{}

func (ubjCodec) members(raw []byte) ([]member, error) {
	d := &ubjDecoder{data: raw}
	m, err := d.marker()
	if err != nil || m != '{' {
		return nil, d.errorf("no object")
	}
	_, count, err := d.header()
	if err != nil {
		return nil, err
	}
	var out []member
	for i := 0; i != count; i++ {
		if count < 0 && d.at('}') {
			break
		}
		key, err := d.text()
		if err != nil {
			return nil, err
		}
		from := d.pos
		if _, err := d.value(1); err != nil {
			return nil, err
		}
		out = append(out, member{key, raw[from:d.pos:d.pos]})
	}
	return out, nil
}

func (c ubjCodec) object(m []member) []byte {
	out := []byte{'{'}
	for i := range m {
		// A key is text without its marker.
		out = append(append(out, c.quote(m[i].key)[1:]...), m[i].raw...)
	}
	return append(out, '}')
}

func (ubjCodec) items(raw []byte) (byte, [][]byte, error) {
	d := &ubjDecoder{data: raw}
	m, err := d.marker()
	if err != nil || m != '[' {
		return 0, nil, d.errorf("no array")
	}
	kind, count, err := d.header()
	if err != nil {
		return 0, nil, err
	}
	if size, ok := kindSizes[kind]; ok {
		all, err := d.take(count * size)
		if err != nil {
			return 0, nil, err
		}
		return kind, slices.Collect(slices.Chunk(all, size)), nil
	}
	if kind != 0 {
		return 0, nil, d.errorf("an array of containers of one kind")
	}
	var out [][]byte
	for i := 0; i != count; i++ {
		if count < 0 && d.at(']') {
			break
		}
		from := d.pos
		if _, err := d.value(1); err != nil {
			return 0, nil, err
		}
		out = append(out, raw[from:d.pos:d.pos])
	}
	return 0, out, nil
}

func (ubjCodec) array(kind byte, items [][]byte) []byte {
	out := []byte{'['}
	if kind != 0 {
		out = append(out, '$', kind)
	}
	out = binary.BigEndian.AppendUint64(append(out, '#', 'L'), uint64(len(items)))
	return append(out, bytes.Join(items, nil)...)
}

func (ubjCodec) text(raw []byte) (string, error) {
	v, err := (&ubjDecoder{data: raw}).value(0)
	s, ok := v.(string)
	if err == nil && !ok {
		err = corruptf("not text")
	}
	return s, err
}

func (ubjCodec) quote(s string) []byte {
	return append(binary.BigEndian.AppendUint64([]byte{'S', 'L'}, uint64(len(s))), s...)
}

func (ubjCodec) integer(kind byte, v int) []byte {
	switch kind {
	case 'i', 'U':
		return []byte{byte(v)}
	case 'I':
		return binary.BigEndian.AppendUint16(nil, uint16(v))
	case 'l':
		return binary.BigEndian.AppendUint32(nil, uint32(v))
	case 'L':
		return binary.BigEndian.AppendUint64(nil, uint64(v))
	case 'd', 'D':
		return ubjCodec{}.float(kind, float64(v))
	}
	return binary.BigEndian.AppendUint32([]byte{'l'}, uint32(v))
}

func (ubjCodec) float(kind byte, v float64) []byte {
	switch kind {
	case 'd':
		return binary.BigEndian.AppendUint32(nil, math.Float32bits(float32(v)))
	case 'D':
		return binary.BigEndian.AppendUint64(nil, math.Float64bits(v))
	}
	return binary.BigEndian.AppendUint32([]byte{'d'}, math.Float32bits(float32(v)))
}

func (ubjCodec) decode(raw []byte) (any, error) { return decodeUBJ(raw) }
