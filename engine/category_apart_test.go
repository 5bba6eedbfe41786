package engine

import "testing"

func TestTellsTextsApart(t *testing.T) {
	for want, lists := range map[bool][][]string{
		true:  {{"a", "1e3"}, {"07", "7"}, {"7.0"}, {"-0"}, {"1000", "+5", "1.50"}},
		false: {nil, {"a", "b"}, {"1", "2", "-3", "0.5", "1234567890123"}, {"True", "False"}, {""}},
	} {
		for _, names := range lists {
			f := Feature{Name: "f", Categorical: true, Categories: names}
			if got := f.TellsTextsApart(); got != want {
				t.Errorf("%q: %t", names, got)
			}
		}
	}
}
