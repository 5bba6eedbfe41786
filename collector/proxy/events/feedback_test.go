package events

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
)

// TestFeedback: what Seldon's logger sends of its feedback is a label of the prediction that
// it names, or of each of its rows.
func TestFeedback(t *testing.T) {
	var got []string
	r := openRig(t, func(c *Config) {
		c.Label = func(_ context.Context, labels []Label) ([]error, error) {
			refused := make([]error, len(labels))
			for i, l := range labels {
				if got = append(got, fmt.Sprintf("%s %s %s %s", l.Model, l.ID, l.Label, l.Time)); string(l.Label) == `"bad"` {
					refused[i] = errors.New("a bad one")
				}
			}
			return refused, nil
		}
	})
	feedback := func(data string) Event {
		return Event{ID: "e", Type: "io.seldon.serving.feedback", Time: "2026-05-01T12:00:00Z", Data: []byte(data), Extensions: map[string]string{"inferenceservicename": "iris", "modelid": "node", "requestid": "r1"}}
	}
	for _, c := range []struct {
		data string
		want []string // each after the model, with the time
	}{
		{`{"truth":{"data":{"ndarray":[[1]]}}}`, []string{"r1 1"}},
		{`{"request":{"data":{"ndarray":[[5.1,3.5]]}},"response":{"meta":{"puid":"p1"},"data":{"ndarray":[[0.2]]}},"reward":1,"truth":{"data":{"names":["class"],"ndarray":["setosa"]}}}`, []string{`p1 "setosa"`}},
		{`{"truth":{"data":{"tensor":{"shape":[3,1],"values":[0,1,2.5]}}}}`, []string{"r1.0 0", "r1.1 1", "r1.2 2.5"}},
		{`{"request":{"meta":{"puid":"q1"}},"truth":{"strData":"yes"}}`, []string{`q1 "yes"`}},
		{`{"truth":{"jsonData":true}}`, []string{"r1 true"}},
		{`{"truth":{"jsonData":["a",{"class":"b"}]}}`, nil},
		{`{"truth":{"data":{"ndarray":[[0,1]]}}}`, nil},
		{`{"truth":{"data":{"ndarray":["bad"]}}}`, nil},
		{`{"reward":0.5}`, nil},
		{`{"truth":{"binData":"AAAA"}}`, nil},
		{`{"truth":{"data":{"ndarray":[]}}}`, nil},
		{`{"truth":7}`, nil},
		{`[1]`, nil},
		{`no`, nil},
	} {
		got = nil
		out, err := r.Take(t.Context(), feedback(c.data))
		var refused *Refusal
		if c.want == nil {
			if !errors.As(err, &refused) {
				t.Errorf("%s: %+v, %v", c.data, out, err)
			}
			continue
		}
		want := slices.Clone(c.want)
		for i := range want {
			want[i] = "iris.node " + want[i] + " 2026-05-01T12:00:00Z"
		}
		if err != nil || out.Status != Recorded || !slices.Equal(got, want) {
			t.Errorf("%s: %q, %+v, %v, want %q", c.data, got, out, err, want)
		}
	}
	// Of several labels the others are recorded.
	if out, err := r.Take(t.Context(), feedback(`{"truth":{"data":{"ndarray":["good","bad"]}}}`)); err != nil || out.Status != Recorded || out.Refused != 1 || out.Reason != "row 2: a bad one" {
		t.Errorf("%+v, %v", out, err)
	}
	if n := r.files(t); n != 0 {
		t.Errorf("%d files", n)
	}
}
