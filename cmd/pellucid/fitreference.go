package main

import (
	"bytes"

	"github.com/pellucid/pellucid/engine/table"
)

// referenceFile is the name of the rows that a fitted version's drift is measured against.
const referenceFile = "reference.parquet"

// referenceRows is how many of the rows learnt from are kept as reference, at most.
const referenceRows = 20_000

// reference writes the features of the rows learnt from, evenly chosen where they are
// many.
func (r *fitRows) reference(names []string, training []int) ([]byte, error) {
	rows := training
	if n := len(training); n > referenceRows {
		rows = make([]int, referenceRows)
		for i := range rows {
			rows[i] = training[i*n/referenceRows]
		}
	}
	out := &table.Table{Rows: len(rows), Named: true}
	for _, name := range names {
		out.Columns = append(out.Columns, r.table.Column(name).Take(rows))
	}
	var b bytes.Buffer
	err := out.WriteParquet(&b)
	return b.Bytes(), err
}
