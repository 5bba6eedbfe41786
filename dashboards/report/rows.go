package report

import (
	"bufio"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"

	"github.com/pellucid/pellucid/collector"
)

// JSON writes one explanation a line.
func JSON(w io.Writer, list []collector.Explanation) error {
	b := bufio.NewWriter(w)
	e := json.NewEncoder(b)
	e.SetEscapeHTML(false)
	for i := range list {
		if err := e.Encode(&list[i]); err != nil {
			return fmt.Errorf("write explanation %d: %w", i, err)
		}
	}
	return b.Flush()
}

// CSVWriter writes explanations as `row,output,base,prediction,<feature>,...`,
// where the feature columns hold their effects and an empty field is missing.
type CSVWriter struct {
	out      *csv.Writer
	features []string
	record   []string
}

// NewCSVWriter returns a CSVWriter; the header is written with the first row.
func NewCSVWriter(w io.Writer) *CSVWriter { return &CSVWriter{out: csv.NewWriter(w)} }

// Write writes the explanation of one output of a row, which counts from 0. All
// of them must have the same features, in the same order.
func (c *CSVWriter) Write(row int, e *collector.Explanation) error {
	if c.features == nil {
		if err := c.head(e); err != nil {
			return err
		}
	}
	if len(e.Attributions) != len(c.features) {
		return fmt.Errorf("write row %d: %d features, the header has %d", row, len(e.Attributions), len(c.features))
	}
	c.record = append(c.record[:0], strconv.Itoa(row), e.Output, exact(e.Base), exact(e.Prediction))
	for i, a := range e.Attributions {
		if a.Feature != c.features[i] {
			return fmt.Errorf("write row %d: feature %q where the header has %q", row, a.Feature, c.features[i])
		}
		c.record = append(c.record, exact(a.Phi))
	}
	if err := c.out.Write(c.record); err != nil {
		return fmt.Errorf("write row %d: %w", row, err)
	}
	return nil
}

func (c *CSVWriter) head(e *collector.Explanation) error {
	if len(e.Attributions) == 0 {
		return errors.New("write header: an explanation without features")
	}
	head := []string{"row", "output", "base", "prediction"}
	c.features = make([]string, 0, len(e.Attributions))
	for _, a := range e.Attributions {
		c.features = append(c.features, a.Feature)
	}
	if err := c.out.Write(append(head, c.features...)); err != nil {
		return fmt.Errorf("write header: %w", err)
	}
	return nil
}

// Flush writes what is buffered.
func (c *CSVWriter) Flush() error {
	c.out.Flush()
	if err := c.out.Error(); err != nil {
		return fmt.Errorf("write CSV: %w", err)
	}
	return nil
}

// CSV writes explanations of rows that all have the same number of outputs, in
// the order explain returns them; rows says how many rows there are.
func CSV(w io.Writer, list []collector.Explanation, rows int) error {
	if rows <= 0 || len(list)%rows != 0 {
		return fmt.Errorf("write CSV: %d explanations of %d rows", len(list), rows)
	}
	c := NewCSVWriter(w)
	each := len(list) / rows
	for i := range list {
		if err := c.Write(i/each, &list[i]); err != nil {
			return err
		}
	}
	return c.Flush()
}

// exact writes the shortest text that reads back as v; NaN is missing.
func exact(v float64) string {
	if math.IsNaN(v) {
		return ""
	}
	return strconv.FormatFloat(v, 'g', -1, 64)
}
