// Package reading tells of a text that was made of another, by taking out escapes or writing
// signs in one way, where in that each of its bytes was read: so that what is found in it can be
// replaced in the first.
//
// It owns that bookkeeping and nothing else: what a text is read as is decided by whoever reads
// (collector's Scrubber, capture's Patterns). Nothing is copied until something changes.
package reading

// Text is a text with its places in the first one.
type Text struct {
	S string
	// at is where in the first text each byte of S begins and, last, where it ends; nil where both
	// are the same.
	at []int
}

// Of is a text as it is.
func Of(s string) Text { return Text{S: s} }

// As is t with each byte another.
func (t Text) As(s string) Text { return Text{s, t.at} }

// Begin is where in the first text the byte at i was read.
func (t Text) Begin(i int) int {
	if t.at == nil {
		return i
	}
	return t.at[i]
}

// End is where in the first text what ends at i was read to. The rest of what one sign was read
// as belongs to it.
func (t Text) End(i int) int {
	for t.at != nil && i > 0 && i < len(t.S) && t.at[i] == t.at[i-1] {
		i++
	}
	return t.Begin(i)
}

// Place is where in the first text the bytes from i to end were read.
func (t Text) Place(i, end int) [2]int {
	if end <= i {
		return [2]int{t.Begin(i), t.Begin(end)}
	}
	return [2]int{t.Begin(i), t.End(end)}
}

// Rewriting makes a text of another, going through it from its beginning on.
type Rewriting struct {
	of Text
	s  []byte
	at []int // nil until something changes
}

// Rewrite begins to make a text of t.
func Rewrite(t Text) *Rewriting { return &Rewriting{of: t} }

// Change says that what stands at i does not stay; all before it does, unless it has changed.
func (w *Rewriting) Change(i int) {
	if w.at != nil {
		return
	}
	w.s, w.at = append(make([]byte, 0, len(w.of.S)), w.of.S[:i]...), make([]int, i, len(w.of.S)+1)
	for k := range w.at {
		w.at[k] = w.of.Begin(k)
	}
}

// Add appends bytes that stand for what begins at i.
func (w *Rewriting) Add(i int, b ...byte) {
	w.Change(i)
	from := w.of.Begin(i)
	for range b {
		w.at = append(w.at, from)
	}
	w.s = append(w.s, b...)
}

// Keep appends n bytes at i, as they are.
func (w *Rewriting) Keep(i, n int) {
	if w.at == nil {
		return
	}
	for k := i; k < i+n; k++ {
		w.at = append(w.at, w.of.Begin(k))
	}
	w.s = append(w.s, w.of.S[i:i+n]...)
}

// Done is the text that was made; changed is false where it is the one it was made of.
func (w *Rewriting) Done() (t Text, changed bool) {
	if w.at == nil {
		return w.of, false
	}
	return Text{string(w.s), append(w.at, w.of.Begin(len(w.of.S)))}, true
}
