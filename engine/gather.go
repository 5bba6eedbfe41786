package engine

// Gather puts columns into the matrix that a tabular model takes as they are read,
// with the values that Bind would give it. It knows no errors: what it does not take
// is for Bind to take, or to refuse.
type Gather struct {
	info   *Info
	matrix *Tensor
	filled []bool
	count  int
	next   int // where the next feature is expected
	byName map[string]int
	codes  categories // of the feature whose names came last
}

// NewGather returns a Gather for that many rows, or nil where the model takes no
// matrix of columns.
func NewGather(info *Info, rows int) *Gather {
	if !Gathers(info) || rows < 1 {
		return nil
	}
	n := len(info.Features)
	matrix, err := New(info.Inputs[0].DType, rows, n)
	if err != nil {
		return nil
	}
	return &Gather{info: info, matrix: matrix, filled: make([]bool, n)}
}

// Gathers reports whether the model takes a matrix of floats with a column a feature.
func Gathers(info *Info) bool {
	return matrixInput(info) && (info.Inputs[0].DType == Float32 || info.Inputs[0].DType == Float64)
}

// Feature returns the place of the feature of that name, once.
func (g *Gather) Feature(name []byte) (f int, ok bool) {
	if string(name) == g.info.Inputs[0].Name {
		return 0, false // it could be meant as the matrix
	}
	f = g.next
	if f >= len(g.filled) || g.info.Features[f].Name != string(name) {
		if g.byName == nil {
			g.byName = make(map[string]int, len(g.filled))
			for i := range g.info.Features {
				g.byName[g.info.Features[i].Name] = i
			}
		}
		if f, ok = g.byName[string(name)]; !ok {
			return 0, false
		}
	}
	if g.filled[f] {
		return 0, false
	}
	g.filled[f], g.next = true, f+1
	g.count++
	return f, true
}

// Fill converts a column, of a type other than String, into the place of feature f.
func (g *Gather) Fill(f int, column *Tensor) bool {
	return column.Len() == g.matrix.Rows() && fillColumn(g.info, g.matrix, f, column) == nil
}

// Name sets row r of feature f to the code of a category's name.
func (g *Gather) Name(f, r int, name []byte) bool {
	feature := &g.info.Features[f]
	if noCategories(feature) != "" {
		return false
	}
	if g.codes.feature != feature {
		g.codes.look(g.info, feature, g.matrix.Rows())
	}
	code := g.codes.name(string(name))
	if code != code && !g.info.Missing {
		return false
	}
	switch at := r*len(g.filled) + f; d := g.matrix.data.(type) {
	case *[]float32:
		(*d)[at] = float32(code)
	case *[]float64:
		(*d)[at] = code
	}
	return true
}

// Matrix returns the matrix once every feature has been filled.
func (g *Gather) Matrix() (*Tensor, bool) { return g.matrix, g.count == len(g.filled) }
