package collector

import "encoding/json"

// ExplainRequest asks for explanations of rows (brought along or stored). Every
// field is optional.
type ExplainRequest struct {
	Method string `json:"method,omitempty"`
	// Output names the output explained: an output's name, name[k], or a class.
	// Empty means the default: every output of a tree model's margin, the
	// predicted score of a network.
	Output string `json:"output,omitempty"`
	// Background is "default", a digest, or rows (a list of lists).
	Background json.RawMessage `json:"background,omitempty"`
	Budget     Budget          `json:"budget,omitempty"`
	// Input names the one input that a gradient method attributes to; empty means all
	// of floats, or where there are none the ids with the largest table of vectors.
	Input string `json:"input,omitempty"`
	// Baseline is the reference input of a gradient method: one row. Of ids it is one,
	// for all positions, or one a position; empty means vectors of zeros.
	Baseline []float64 `json:"baseline,omitempty"`
	// Steps is the number of quadrature points of integrated gradients; 0 means
	// as many as the tolerance needs.
	Steps int `json:"steps,omitempty"`
	// Interactions adds pairs (tree methods).
	Interactions bool `json:"interactions,omitempty"`
}

// Budget bounds an explanation's work. Zero fields mean the server's defaults.
type Budget struct {
	Evaluations int `json:"evaluations,omitempty"`
	DeadlineMS  int `json:"deadline_ms,omitempty"`
}

// Explanation is the answer of every method for one row and output:
// Base + sum(phi) = Prediction in Space, within the certificate's residual.
type Explanation struct {
	PredictionID string        `json:"prediction_id,omitempty"`
	Model        string        `json:"model"`
	Version      string        `json:"version"`
	Method       string        `json:"method"`
	Output       string        `json:"output"`
	Space        string        `json:"space"` // "margin", "probability", "identity"
	Base         float64       `json:"base"`
	Prediction   float64       `json:"prediction"`
	Attributions []Attribution `json:"attributions"`
	Interactions []Interaction `json:"interactions,omitempty"`
	Certificate  Certificate   `json:"certificate"`
	// Sealed are the features whose values are stored sealed and were opened for this
	// answer. Such an explanation is given and never recorded.
	Sealed []string `json:"sealed,omitempty"`
}

// Attribution is one feature's part. Value is null where the feature is missing.
type Attribution struct {
	Feature string   `json:"feature"`
	Value   any      `json:"value"`
	Phi     float64  `json:"phi"`
	Stderr  *float64 `json:"stderr,omitempty"`
}

// Interaction is the part of a pair of features (half of it counted for each).
type Interaction struct {
	A   string  `json:"a"`
	B   string  `json:"b"`
	Phi float64 `json:"phi"`
}

// Certificate says what an explanation's numbers rest on.
type Certificate struct {
	Method string `json:"method"`
	// Mode is "path_dependent" or "background" for tree_shap.
	Mode  string `json:"mode,omitempty"`
	Space string `json:"space"`
	// BaseDefinition says in words what Base is.
	BaseDefinition string `json:"base_definition"`
	// Players says where the players of the Shapley values are not the features.
	Players string `json:"players,omitempty"`
	// Cover is what the trees' covers count ("hessian", "count", "weight").
	Cover            string `json:"cover,omitempty"`
	BackgroundDigest string `json:"background_digest,omitempty"`
	BackgroundRows   int    `json:"background_rows,omitempty"`
	Baseline         string `json:"baseline,omitempty"`
	ModelDigest      string `json:"model_digest"`
	// Residual is |base + sum(phi) - prediction|, ResidualRelative the same over
	// the scale max(|prediction - base|, max|phi|).
	Residual         float64 `json:"completeness_residual"`
	ResidualRelative float64 `json:"completeness_relative"`
	// ErrorEstimate bounds the numerical error of any phi; Exact says that
	// nothing was sampled or discretised.
	ErrorEstimate float64 `json:"error_estimate"`
	Exact         bool    `json:"exact"`
	// Points is the quadrature order or number of steps used.
	Points int `json:"points,omitempty"`
	// Warning says that the attributions do not add up where they are to, why, and what else
	// there is.
	Warning string `json:"warning,omitempty"`
	// Engine is the version of Pellucid that computed it.
	Engine string `json:"engine"`
}
