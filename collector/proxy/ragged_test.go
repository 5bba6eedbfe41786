package proxy

import "testing"

// TestRaggedInstances: a list where the first cell of its feature was a value is the
// caller's mistake.
func TestRaggedInstances(t *testing.T) {
	r := newRig(t, nil)
	for _, cell := range []string{"[]", "[[]]", "[1]", "[[1]]", "{}"} {
		for _, body := range []string{
			`{"instances":[["x",` + cell + `,3]]}`, `{"instances":[[1,` + cell + `,3]]}`, `{"instances":[[1,2,3],[1,` + cell + `,3]]}`, `{"instances":[[1,2,3],` + cell + `]}`,
		} {
			if w := r.do("POST", "/v1/models/lin:predict", body); w.Code != 400 {
				t.Errorf("%s: %d %s", body, w.Code, w.Body)
			}
		}
	}
}
