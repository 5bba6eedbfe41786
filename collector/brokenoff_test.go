package collector

import (
	"slices"
	"testing"

	"github.com/pellucid/pellucid/engine"
)

// TestTextsThatBreakOffTellNoHalfValues of private features, and keep all else.
func TestTextsThatBreakOffTellNoHalfValues(t *testing.T) {
	v := &ModelVersion{Schema: &Schema{Features: []Field{{Name: "who", Private: PrivacyMask}, {Name: "sum", Private: PrivacyDrop}, {Name: "open"}}}}
	tensor := func(x *engine.Tensor, err error) *engine.Tensor {
		if err != nil {
			t.Fatal(err)
		}
		return x
	}
	in := engine.Values{
		{Name: "who", Tensor: tensor(engine.Of([]string{"Ann Ann Smith", "Zoe\u0308 and Zoe\u0308", "Élan Groß Straßburg", "Jürgen Müller"}, 4))},
		{Name: "sum", Tensor: tensor(engine.Of([]float64{123456.5}, 1))},
		{Name: "open", Tensor: tensor(engine.Of([]string{"public"}, 1))},
	}
	texts := []string{"so it is, ann ANN Sm", "so it is, Ann Ann Ann", "it costs 12345", "it costs 123,4", "a public pub", "all said ", "", "Ann Ann Smith", "said ZO\u00eb and Zo", "said Zoe\u0308 and ", "said ＺＯＥ\u0308 ＡＮＤ ＺＯＥ", "said Zoe", "of É\u0301 ÉLAN GROSS STR", "of Ｅ\u0301ｌａｎ Ｇｒｏｓｓ Ｓ", "Zo\u00eb said \xff\u0301x", "Jü", "\u00adJü"}
	want := []string{"so it is, ", "so it is, Ann ", "it costs ", "it costs ", "a public ", "all said ", "", "", "said ", "said ", "said ", "said ", "of É\u0301 ", "of ", "Zo\u00eb said ", "", ""}
	WithoutEnds(v, in, texts)
	if !slices.Equal(texts, want) {
		t.Errorf("%q, want %q", texts, want)
	}
	v.Schema.Features = v.Schema.Features[2:]
	if WithoutEnds(v, in, texts[:1]); texts[0] != want[0] {
		t.Errorf("%q", texts[0])
	}
	texts[0] = "a pub"
	if WithoutEnds(v, in, texts[:1]); texts[0] != "a pub" {
		t.Errorf("with nothing private %q", texts[0])
	}
}
