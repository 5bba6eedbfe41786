package api

import (
	"context"
	"time"

	"github.com/labstack/echo/v4"
)

// Retention is how long things are kept, and what became of it.
type Retention struct {
	Policy RetentionPolicy `json:"policy"`
	// Last is the last run; absent before the first, and where everything is kept.
	Last *RetentionRun `json:"last,omitempty"`
	// Next is when the next run is due; absent where everything is kept.
	Next *time.Time `json:"next,omitempty"`
}

// RetentionPolicy is the configuration's, in its words.
type RetentionPolicy struct {
	Default string            `json:"default"`
	Models  map[string]string `json:"models"`
	Tenants map[string]string `json:"tenants"`
	Traces  string            `json:"traces"`
}

// RetentionRun is one run.
type RetentionRun struct {
	At     time.Time `json:"at"`
	TookMS int64     `json:"took_ms"`
	// Removed counts rows by table, and dead letters; Versions are the digests of models that went with
	// their last prediction.
	Removed  map[string]int64 `json:"removed"`
	Versions []string         `json:"versions"`
	Error    string           `json:"error,omitempty"`
}

// RegisterRetention puts the route on e.
func RegisterRetention(e *echo.Echo, status func(ctx context.Context) Retention) {
	e.GET("/api/v1/retention", func(c echo.Context) error {
		if err := Known(c); err != nil {
			return answer(c, nil, err)
		}
		return answer(c, status(c.Request().Context()), nil)
	})
}
