package api

import (
	"context"
	"encoding/json"
	"time"

	"github.com/labstack/echo/v4"
)

// Shortage is what a rollup counts less than the rows that are stored, of one version
// and, in bins_1m, of one reference.
type Shortage struct {
	Rollup  string `json:"rollup"`
	Tenant  string `json:"tenant"`
	Model   string `json:"model"`
	Version string `json:"version"`
	BinsID  string `json:"bins_id,omitempty"`
	// From is the first minute that is short, To the end of the last; Minutes are so many.
	From    time.Time `json:"from"`
	To      time.Time `json:"to"`
	Minutes int       `json:"minutes"`
	// Missing counts rows of traffic_1m, and bins of rows of bins_1m.
	Missing float64 `json:"missing"`
}

// RecountRequest asks for the rollups to be held against the rows.
type RecountRequest struct {
	// Repair counts again what is short; else it is only told.
	Repair bool `json:"repair"`
}

// Recount is a line of the answer: how far it is, or, the last, what came of it.
type Recount struct {
	Days int `json:"days"`
	Of   int `json:"of,omitempty"`
	// Done is set in the last line; Short is what was short, and is not any more where
	// Repaired is set.
	Done     bool       `json:"done,omitempty"`
	Repaired bool       `json:"repaired,omitempty"`
	Short    []Shortage `json:"short,omitempty"`
	// Damaged are the parts of rollups that cannot be read, as "table/part", set aside
	// where Repaired is set; else nothing but them was looked at.
	Damaged []string `json:"damaged,omitempty"`
	// Unread are the references under which not all rows could be counted.
	Unread []string `json:"unread,omitempty"`
	Error  string   `json:"error,omitempty"`
}

// RegisterRollups puts the route on e. recount tells how far it is as it goes on.
func RegisterRollups(e *echo.Echo, recount func(ctx context.Context, r RecountRequest, tell func(Recount) error) error) {
	e.POST("/api/v1/rollups/recount", func(c echo.Context) error {
		var r RecountRequest
		if err := decodeSubject(c, &r); err != nil {
			return answer(c, nil, err)
		}
		enc := json.NewEncoder(flushing{newLines(c)})
		err := recount(c.Request().Context(), r, func(line Recount) error { return enc.Encode(line) })
		if err == nil || !c.Response().Committed {
			return answerUnless(c, err)
		}
		// The status is sent: the last line says that it did not come to its end.
		return enc.Encode(Recount{Error: err.Error()})
	}, sameOrigin)
}

// flushing sends each line as it is written.
type flushing struct{ *linesWriter }

// Write sends a line at once.
func (w flushing) Write(b []byte) (int, error) {
	n, err := w.linesWriter.Write(b)
	if err == nil {
		// A test's answer cannot be flushed, and need not be.
		_ = w.conn.Flush()
	}
	return n, err
}
