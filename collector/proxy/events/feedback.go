package events

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/pellucid/pellucid/collector/proxy/oip"
)

// feedbackType is the type of the events that Seldon's logger sends of its feedback: what was
// asked and answered, how it was rewarded, and what was true of it.
const feedbackType = "io.seldon.serving.feedback"

// Label is what was true of a prediction. Label is JSON; Time is empty where it is not said.
type Label struct {
	ID, Model, Time string
	Label           json.RawMessage
}

// seldonMessage is what names a prediction in what was asked and answered.
type seldonMessage struct {
	Meta struct {
		PUID string `json:"puid"`
	} `json:"meta"`
}

// label records what an event of feedback says is true: of the one row that it has, or of
// each of the rows of the prediction. Nothing of it waits.
func (r *Room) label(ctx context.Context, e Event) (Outcome, error) {
	labels, err := labelsOf(e)
	if err != nil {
		return Outcome{}, err
	}
	refused, err := r.cfg.Label(ctx, labels)
	if err != nil {
		return Outcome{}, err
	}
	out := Outcome{Status: Recorded}
	for i, err := range refused {
		if err == nil {
			continue
		}
		if out.Refused++; out.Refused == 1 {
			out.Reason = err.Error()
			if len(labels) > 1 {
				out.Reason = fmt.Sprintf("row %d: %s", i+1, err)
			}
		}
	}
	if out.Refused == len(labels) {
		return Outcome{}, refuse(out.Reason)
	}
	return out, nil
}

func labelsOf(e Event) ([]Label, error) {
	if oip.Check(e.Data) != nil {
		return nil, refuse("the payload is not JSON")
	}
	var f struct {
		Request, Response seldonMessage
		Truth             *payload
	}
	if err := json.Unmarshal(e.Data, &f); err != nil {
		return nil, refuse("the payload is no feedback of Seldon's")
	}
	if f.Truth == nil {
		return nil, refuse("the feedback has no truth: a reward alone is no label")
	}
	x := e.Extensions
	// The request of the feedback has an id of its own where its sender names none.
	of := Label{ID: cmp.Or(f.Response.Meta.PUID, f.Request.Meta.PUID, x["requestid"]), Model: modelOf(x), Time: e.Time}
	if of.ID == "" || of.Model == "" {
		return nil, refuse("it is not said of which prediction or model the feedback is")
	}
	if _, err := time.Parse(time.RFC3339Nano, e.Time); err != nil {
		of.Time = ""
	}
	list, err := f.Truth.truth()
	if err != nil {
		return nil, refuse("the truth of the feedback: " + err.Error())
	}
	if len(list) == 0 || len(list) > maxRows {
		return nil, refuse("the truth of the feedback has no rows, or more than 10,000")
	}
	out := make([]Label, len(list))
	for i, raw := range list {
		if out[i] = of; len(list) > 1 {
			out[i].ID += "." + strconv.Itoa(i)
		}
		out[i].Label = bytes.Clone(raw)
	}
	return out, nil
}

// truth is the one value of each row.
func (p *payload) truth() ([]json.RawMessage, error) {
	var rows []row
	var err error
	switch {
	case p.Data != nil:
		rows, err = p.Data.rows(response, nil)
	case p.JSONData != nil || p.StrData != nil:
		rows, err = p.seldonRows(response, nil)
	default:
		err = refuse("it is of no form that is known (data, jsonData, strData)")
	}
	out := make([]json.RawMessage, len(rows))
	for i, r := range rows {
		for _, raw := range r {
			out[i] = raw
		}
		if len(r) != 1 || first(out[i]) == '[' || first(out[i]) == '{' {
			return nil, refuse("a row has not one value")
		}
	}
	return out, err
}
