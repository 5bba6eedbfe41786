package catboost

import (
	"bytes"
	"encoding/json"
	"strconv"
)

// document is a file, in the library's own names.
type document struct {
	Info      modelInfo             `json:"model_info"`
	Oblivious []obliviousTree       `json:"oblivious_trees"`
	Trees     []*node               `json:"trees"`
	Features  featuresInfo          `json:"features_info"`
	Tables    map[string]tableValue `json:"ctr_data"`
	Scale     scaleAndBias          `json:"scale_and_bias"`
}

type modelInfo struct {
	Version    string       `json:"catboost_version_info"`
	Params     *params      `json:"params"`
	Classes    *classParams `json:"class_params"`
	Multiclass *classParams `json:"multiclass_params"` // before 0.24
}

type params struct {
	Loss struct {
		Type string `json:"type"`
	} `json:"loss_function"`
	CTRs struct {
		Simple       []ctrSetting            `json:"simple_ctrs"`
		Combinations []ctrSetting            `json:"combinations_ctrs"`
		PerFeature   map[string][]ctrSetting `json:"per_feature_ctrs"`
	} `json:"cat_feature_params"`
}

// ctrSetting is how a kind of statistic was asked for.
type ctrSetting struct {
	Type   string          `json:"ctr_type"`
	Target json.RawMessage `json:"target_binarization"`
}

type classParams struct {
	Names  []number `json:"class_names"`
	Labels []number `json:"class_to_label"`
	Count  int      `json:"classes_count"`
}

// position is what every feature has.
type position struct {
	Name  string `json:"feature_name"`
	ID    string `json:"feature_id"`
	Index int    `json:"feature_index"`
	Flat  int    `json:"flat_feature_index"`
}

func (p *position) name() string {
	switch {
	case p.Name != "":
		return p.Name
	case p.ID != "":
		return p.ID
	}
	return "f" + strconv.Itoa(p.Flat)
}

type featuresInfo struct {
	Float []struct {
		position
		Borders []float32 `json:"borders"`
		NaN     string    `json:"nan_value_treatment"`
	} `json:"float_features"`
	Categorical []struct {
		position
		Values []int32 `json:"values"`
	} `json:"categorical_features"`
	Text      []json.RawMessage `json:"text_features"`
	Embedding []json.RawMessage `json:"embedding_features"`
	CTRs      []ctrFeature      `json:"ctrs"`
}

type ctrFeature struct {
	Borders    []float32 `json:"borders"`
	Type       string    `json:"ctr_type"`
	Elements   []element `json:"elements"`
	Identifier string    `json:"identifier"`
	PriorNum   float32   `json:"prior_numerator"`
	PriorDenom float32   `json:"prior_denomerator"` // the library's spelling
	Scale      float32   `json:"scale"`
	Shift      float32   `json:"shift"`
	Target     int       `json:"target_border_idx"`
}

// element is one part of what is hashed for a statistic: a category, whether a
// number is above a border, or whether a category is a certain one.
type element struct {
	Kind   string  `json:"combination_element"`
	Cat    int     `json:"cat_feature_index"`
	Float  int     `json:"float_feature_index"`
	Border float32 `json:"border"`
	Value  int32   `json:"value"`
}

type obliviousTree struct {
	Values  []float64 `json:"leaf_values"`
	Weights []float64 `json:"leaf_weights"`
	Splits  []split   `json:"splits"`
}

type split struct {
	Type   string   `json:"split_type"`
	Index  *int     `json:"split_index"`
	Float  int      `json:"float_feature_index"`
	Border *float32 `json:"border"`
	Cat    int      `json:"cat_feature_index"`
	Value  int32    `json:"value"`
}

// node is a node of a non-symmetric tree: a leaf has a value.
type node struct {
	Left   *node    `json:"left"`
	Right  *node    `json:"right"`
	Split  *split   `json:"split"`
	Value  values   `json:"value"`
	Weight *float64 `json:"weight"`
}

// values is one number or a list of them.
type values []float64

// UnmarshalJSON implements json.Unmarshaler.
func (v *values) UnmarshalJSON(data []byte) error {
	if len(data) > 0 && data[0] == '[' {
		return json.Unmarshal(data, (*[]float64)(v))
	}
	var one float64
	if err := json.Unmarshal(data, &one); err != nil {
		return err
	}
	*v = values{one}
	return nil
}

// number is a label, which may be a number, a truth value or text, as text.
type number string

// UnmarshalJSON implements json.Unmarshaler.
func (n *number) UnmarshalJSON(data []byte) error {
	if len(data) > 0 && data[0] == '"' {
		return json.Unmarshal(data, (*string)(n))
	}
	switch s := string(bytes.TrimSpace(data)); s {
	case "true":
		*n = "True" // as Python writes it
	case "false":
		*n = "False"
	default:
		*n = number(s)
	}
	return nil
}

// scaleAndBias is [scale, [bias, ...]], in older files [scale, bias].
type scaleAndBias struct {
	scale float64
	bias  []float64
}

// UnmarshalJSON implements json.Unmarshaler.
func (s *scaleAndBias) UnmarshalJSON(data []byte) error {
	var parts []values
	if err := json.Unmarshal(data, &parts); err != nil {
		return err
	}
	if len(parts) != 2 || len(parts[0]) != 1 {
		return corruptf("scale_and_bias is not a scale and a bias")
	}
	s.scale, s.bias = parts[0][0], parts[1]
	return nil
}

// tableValue is a statistic's hash table.
type tableValue struct {
	Denominator int32     `json:"counter_denominator"`
	Map         flatTable `json:"hash_map"`
	Stride      int       `json:"hash_stride"`
}

// flatTable is a list of hashes, which are texts of 64-bit numbers, each followed
// by its numbers.
type flatTable struct {
	hashes []uint64
	// at[i] is where the numbers of hashes[i] begin.
	at     []int32
	counts []float64
}

// UnmarshalJSON implements json.Unmarshaler. It is given valid JSON.
func (t *flatTable) UnmarshalJSON(data []byte) error {
	data = bytes.TrimSpace(data)
	if string(data) == "null" {
		return nil
	}
	if len(data) < 2 || data[0] != '[' {
		return corruptf("hash_map is not a list")
	}
	rest := bytes.TrimSpace(data[1 : len(data)-1])
	for len(rest) > 0 {
		var word []byte
		word, rest, _ = bytes.Cut(rest, []byte(","))
		word, rest = bytes.TrimSpace(word), bytes.TrimSpace(rest)
		if len(word) > 2 && word[0] == '"' {
			h, err := strconv.ParseUint(string(word[1:len(word)-1]), 10, 64)
			if err != nil {
				return corruptf("a hash is not a number")
			}
			t.hashes, t.at = append(t.hashes, h), append(t.at, int32(len(t.counts)))
			continue
		}
		v, err := strconv.ParseFloat(string(word), 64)
		if err != nil || len(t.hashes) == 0 || len(t.counts) > 1<<30 {
			return corruptf("hash_map is not a list of hashes and numbers")
		}
		t.counts = append(t.counts, v)
	}
	return nil
}
