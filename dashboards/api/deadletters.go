package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"

	"github.com/labstack/echo/v4"

	"github.com/pellucid/pellucid/collector"
)

// DeadLetters are the records that the store refused for what is in them.
type DeadLetters struct {
	// List returns all of them, the oldest first, without their contents.
	List func() []collector.DeadLetter
	Get  func(ctx context.Context, id string) (DeadLetter, error)
	// Drive sends letters to the store once more and returns how many; a letter goes
	// when it is stored. Delete removes letters for good and returns how many.
	Drive  func(ctx context.Context, r DriveRequest) (int, error)
	Delete func(ctx context.Context, r DriveRequest) (int, error)
}

// DeadLetter is one letter with what is in it, as a stored prediction would look.
type DeadLetter struct {
	collector.DeadLetter
	Predictions []collector.StoredPrediction `json:"predictions,omitempty"`
	Feedback    *collector.Feedback          `json:"feedback,omitempty"`
	// Unreadable says why neither can be shown.
	Unreadable string `json:"unreadable,omitempty"`
}

// DriveRequest names letters: by id, or all there are.
type DriveRequest struct {
	IDs []string `json:"ids"`
	All bool     `json:"all"`
	// WithoutFeatures drives predictions with their features cut, which they then say.
	WithoutFeatures bool `json:"without_features"`
	// Edit changes the one letter that is named before it is driven.
	Edit *DeadEdit `json:"edit,omitempty"`
}

// DeadEdit is a change of a letter: values of features by name, or a label by the name
// label, and features that are to be missing.
type DeadEdit struct {
	// Row is the row of a prediction of several, from 0.
	Row  *int              `json:"row,omitempty"`
	Set  map[string]string `json:"set,omitempty"`
	Drop []string          `json:"drop,omitempty"`
}

// deadBody bounds a request's body: all letters there may be, by id.
const deadBody = 4 << 20

func registerDead(e *echo.Echo, h handlers) {
	if h.Dead == nil {
		return
	}
	e.GET("/api/v1/dead-letters", h.deadLetters)
	e.GET("/api/v1/dead-letters/:id", h.deadLetter)
	e.POST("/api/v1/dead-letters/drive", h.driveDead)
	e.DELETE("/api/v1/dead-letters", h.deleteDead)
	e.DELETE("/api/v1/dead-letters/:id", h.deleteOneDead)
}

func (h handlers) deadLetters(c echo.Context) error {
	if err := Known(c, "model", "reason", "insert", "limit", "offset"); err != nil {
		return answer(c, nil, err)
	}
	limit, err := parseLimit(c)
	if err != nil {
		return answer(c, nil, err)
	}
	offset := 0
	if s := c.QueryParam("offset"); s != "" {
		if offset, err = strconv.Atoi(s); err != nil || offset < 0 {
			return answer(c, nil, badRequest{fmt.Errorf("offset %q is not a number", s)})
		}
	}
	list := []collector.DeadLetter{}
	count := 0
	for _, l := range h.Dead.List() {
		if !matches(c, "model", l.Model) || !matches(c, "reason", l.Reason) || !matches(c, "insert", l.Insert) {
			continue
		}
		if count++; count > offset && len(list) < limit {
			l.Bins = nil
			list = append(list, l)
		}
	}
	return answer(c, map[string]any{"dead_letters": list, "count": count}, nil)
}

func matches(c echo.Context, name, value string) bool {
	want := c.QueryParam(name)
	return want == "" || want == value
}

func (h handlers) deadLetter(c echo.Context) error {
	if err := Known(c); err != nil {
		return answer(c, nil, err)
	}
	l, err := h.Dead.Get(c.Request().Context(), c.Param("id"))
	l.Bins = nil
	return answer(c, l, err)
}

func (h handlers) driveDead(c echo.Context) error {
	r, err := readDrive(c)
	if err != nil {
		return answer(c, nil, err)
	}
	n, err := h.Dead.Drive(c.Request().Context(), r)
	return answer(c, map[string]int{"driven": n}, err)
}

func (h handlers) deleteDead(c echo.Context) error {
	r, err := readDrive(c)
	if err == nil && (r.WithoutFeatures || r.Edit != nil) {
		err = badRequest{errors.New("without_features and edit belong to driving")}
	}
	if err != nil {
		return answer(c, nil, err)
	}
	n, err := h.Dead.Delete(c.Request().Context(), r)
	return answer(c, map[string]int{"deleted": n}, err)
}

func (h handlers) deleteOneDead(c echo.Context) error {
	if err := Known(c); err != nil {
		return answer(c, nil, err)
	}
	n, err := h.Dead.Delete(c.Request().Context(), DriveRequest{IDs: []string{c.Param("id")}})
	if err == nil && n == 0 {
		err = fmt.Errorf("dead letter %q: %w", c.Param("id"), collector.ErrNotFound)
	}
	return answer(c, map[string]int{"deleted": n}, err)
}

func readDrive(c echo.Context) (r DriveRequest, err error) {
	if err := Known(c); err != nil {
		return r, err
	}
	dec := json.NewDecoder(http.MaxBytesReader(c.Response(), c.Request().Body, deadBody))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&r); err != nil {
		return r, badRequest{fmt.Errorf("read the body: %w", err)}
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return r, badRequest{errors.New("read the body: there is something behind the JSON value")}
	}
	if r.All == (len(r.IDs) > 0) {
		return r, badRequest{errors.New(`name letters by "ids", or say "all": true`)}
	}
	if r.Edit != nil && (len(r.IDs) != 1 || r.WithoutFeatures || len(r.Edit.Set)+len(r.Edit.Drop) == 0) {
		return r, badRequest{errors.New("an edit is of one letter, by its id, with features, and sets or drops something")}
	}
	return r, nil
}
