package repository

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/collector/vfs"
	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/stats"
)

// referenceFile is where a version's reference lies in the store, together with
// the digest of the rows it was made from.
const referenceFile = ".reference.json"

type keptReference struct {
	RowsDigest string `json:"rows_digest,omitempty"`
	// Schema is the id of the schema it was made under: what is private may have
	// changed since, without the version's files.
	Schema    string           `json:"schema,omitempty"`
	Reference *stats.Reference `json:"reference"`
}

// fits reports whether a kept reference tells no more than the schema allows.
func (k *keptReference) fits(s *collector.Schema) bool {
	if k.Schema != "" && k.Schema != s.ID {
		return false
	}
	for i := range s.Features {
		if s.Features[i].Private == collector.PrivacySeal && i < len(k.Reference.Fields) {
			if f := &k.Reference.Fields[i]; f.Kind != stats.KindNone && !f.Keyed() {
				return false
			}
		}
	}
	return true
}

// fileReference puts the reference that model.yaml names in force: from the
// store where the same rows were counted before, else by running the model over
// the rows.
func (r *Repository) fileReference(ctx context.Context, s source, h *held) error {
	path := filepath.Join(s.dir, h.version.Config.Reference)
	digest, err := fileDigest(path)
	if err != nil {
		return fmt.Errorf("read reference %q: %w", h.version.Config.Reference, err)
	}
	dir := filepath.Join(r.cfg.Store, h.version.Digest)
	kept, err := readReference(dir)
	if err == nil && kept.RowsDigest == digest && kept.fits(h.version.Schema) {
		h.reference.Store(kept.Reference)
		return nil
	}
	ref, err := ReferenceOf(ctx, h.version, path)
	if err != nil {
		return err
	}
	h.reference.Store(ref)
	if err := r.cfg.Ours(); err != nil {
		return fmt.Errorf("keep the reference: %w", err)
	}
	return writeKept(dir, keptReference{RowsDigest: digest, Schema: h.version.Schema.ID, Reference: ref})
}

// ReferenceOf makes a reference of a file of rows by running the version over
// them.
func ReferenceOf(ctx context.Context, v *collector.ModelVersion, path string) (*stats.Reference, error) {
	rows, err := readRows(path, v.Info)
	if err != nil {
		return nil, fmt.Errorf("read reference %q: %w", filepath.Base(path), err)
	}
	return BuildReference(ctx, v, rows, filepath.Base(path))
}

// storedReference puts in force what an earlier run made of stored predictions,
// if anything.
func (r *Repository) storedReference(h *held) error {
	dir := filepath.Join(r.cfg.Store, h.version.Digest)
	kept, err := readReference(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if !kept.fits(h.version.Schema) {
		if err := r.cfg.Ours(); err != nil {
			return fmt.Errorf("remove a reference that no longer fits: %w", err)
		}
		return os.Remove(filepath.Join(dir, referenceFile))
	}
	h.reference.Store(kept.Reference)
	return nil
}

func readReference(dir string) (keptReference, error) {
	var kept keptReference
	data, err := os.ReadFile(filepath.Join(dir, referenceFile))
	if err != nil {
		return kept, err
	}
	if err := json.Unmarshal(data, &kept); err != nil {
		return kept, fmt.Errorf("read %s: %w", referenceFile, err)
	}
	if kept.Reference == nil {
		return kept, fmt.Errorf("read %s: it holds no reference", referenceFile)
	}
	return kept, kept.Reference.Validate()
}

func writeReference(dir, schema string, ref *stats.Reference) error {
	return writeKept(dir, keptReference{Schema: schema, Reference: ref})
}

func writeKept(dir string, kept keptReference) error {
	data, err := json.Marshal(kept)
	if err != nil {
		return fmt.Errorf("keep the reference: %w", err)
	}
	return vfs.Replace(filepath.Join(dir, referenceFile), data)
}

// referenceRows is how many rows one run over a reference takes: an upstream
// bounds its requests.
const referenceRows = 4096

// BuildReference runs the version over canonical rows and cuts bins of every
// scalar feature and of the prediction. The rows themselves are not kept, dropped
// fields get no bins, and sealed ones keyed bins.
func BuildReference(ctx context.Context, v *collector.ModelVersion, rows engine.Values, source string) (*stats.Reference, error) {
	n := rows[0].Tensor.Rows()
	var scores []float64
	var decided []string
	for from := 0; from < n; from += referenceRows {
		part, err := rows.Slice(from, min(from+referenceRows, n))
		if err != nil {
			return nil, err
		}
		out, err := v.Predict(ctx, part, nil)
		if err != nil {
			return nil, fmt.Errorf("run the model over the reference: %w", err)
		}
		s, d := collector.Scores(v.Info, out)
		collector.WithoutInputs(v, part, d)
		scores, decided = append(scores, s...), append(decided, d...)
	}
	open, _ := v.Unsealed()
	cols, err := collector.Flatten(open.Schema.Features, rows, n)
	if err != nil {
		return nil, err
	}
	return cut(v, open, cols, n, scores, decided, nil, source)
}

// cut makes the reference of v out of rows of open, which is v with its sealed fields
// as they are; weights say how many rows each stands for, nil 1.
func cut(v, open *collector.ModelVersion, cols collector.Columns, n int, scores []float64, decided []string, weights []float64, source string) (*stats.Reference, error) {
	columns := collector.StatColumns(open.Schema, v.Info.Task, cols, n, scores, decided)
	for i := range columns {
		columns[i].Weights = weights
	}
	ref, err := stats.NewReference(columns, source)
	if err != nil {
		return nil, err
	}
	return ref, collector.SealReference(v.Name, v.Schema, ref)
}

// StoredReference cuts bins of a tenant's stored rows and what they were answered
// with, each as many times as its weight says. Sealed rows whose key was deleted are left
// out.
func StoredReference(v *collector.ModelVersion, tenant string, rows []collector.RawRow, source string) (*stats.Reference, error) {
	var cols collector.Columns
	var first *collector.Columns
	open, sealed := v.Unsealed()
	scores, decided := make([]float64, 0, len(rows)), make([]string, 0, len(rows))
	var weights []float64 // nil while all are 1
	for i := range rows {
		row := rows[i]
		weight := cmp.Or(row.Weight, 1)
		if len(sealed) > 0 {
			var err error
			row, err = collector.OpenRow(collector.Scope{Tenant: tenant, Model: v.Name}, v.Schema, row)
			if errors.Is(err, collector.ErrForgotten) {
				continue
			}
			if err != nil {
				return nil, fmt.Errorf("make a reference of stored rows: %w", err)
			}
		}
		f := &row.Features
		if first == nil {
			first = f
		}
		if len(f.F32) != len(first.F32) || len(f.F64) != len(first.F64) || len(f.I64) != len(first.I64) || len(f.Str) != len(first.Str) {
			return nil, errors.New("make a reference of stored rows: they differ in size")
		}
		cols.F32, cols.F64 = append(cols.F32, f.F32...), append(cols.F64, f.F64...)
		cols.I64, cols.Str = append(cols.I64, f.I64...), append(cols.Str, f.Str...)
		if weight != 1 && weights == nil {
			weights = slices.Repeat([]float64{1}, len(scores))
		}
		if weights != nil {
			weights = append(weights, weight)
		}
		scores, decided = append(scores, row.Score), append(decided, row.Decided)
	}
	if len(rows) > 0 && len(scores) == 0 {
		return nil, fmt.Errorf("make a reference of stored rows: %w", collector.ErrForgotten)
	}
	return cut(v, open, cols, len(scores), scores, decided, weights, source)
}
