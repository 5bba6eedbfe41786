package repository

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/engine"
	"github.com/pellucid/pellucid/engine/stats"
)

// referenceFile is where a version's reference lies in the store, together with
// the digest of the rows it was made from.
const referenceFile = ".reference.json"

type keptReference struct {
	RowsDigest string           `json:"rows_digest,omitempty"`
	Reference  *stats.Reference `json:"reference"`
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
	if err == nil && kept.RowsDigest == digest {
		h.reference.Store(kept.Reference)
		return nil
	}
	ref, err := ReferenceOf(ctx, h.version, path)
	if err != nil {
		return err
	}
	h.reference.Store(ref)
	return writeKept(dir, keptReference{RowsDigest: digest, Reference: ref})
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
	kept, err := readReference(filepath.Join(r.cfg.Store, h.version.Digest))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
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

func writeReference(dir string, ref *stats.Reference) error {
	return writeKept(dir, keptReference{Reference: ref})
}

func writeKept(dir string, kept keptReference) error {
	data, err := json.Marshal(kept)
	if err != nil {
		return fmt.Errorf("keep the reference: %w", err)
	}
	return writeWhole(filepath.Join(dir, referenceFile), data)
}

// writeWhole replaces a file in one step, so that a crash leaves the old or the
// new one.
func writeWhole(path string, data []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	if _, err := tmp.Write(data); err != nil {
		return errors.Join(err, tmp.Close())
	}
	if err := errors.Join(tmp.Sync(), tmp.Close()); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), path)
}

// referenceRows is how many rows one run over a reference takes: an upstream
// bounds its requests.
const referenceRows = 4096

// BuildReference runs the version over canonical rows and cuts bins of every
// scalar feature and of the prediction. The rows themselves are not kept, and
// private fields get no bins.
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
		scores, decided = append(scores, s...), append(decided, d...)
	}
	cols, err := collector.Flatten(v.Schema.Features, rows, n)
	if err != nil {
		return nil, err
	}
	return stats.NewReference(collector.StatColumns(v.Schema, v.Info.Task, cols, n, scores, decided), source)
}

// StoredReference cuts bins of stored rows and what they were answered with.
func StoredReference(v *collector.ModelVersion, rows []collector.RawRow, source string) (*stats.Reference, error) {
	var cols collector.Columns
	scores, decided := make([]float64, len(rows)), make([]string, len(rows))
	for i := range rows {
		f, first := &rows[i].Features, &rows[0].Features
		if len(f.F32) != len(first.F32) || len(f.F64) != len(first.F64) || len(f.I64) != len(first.I64) || len(f.Str) != len(first.Str) {
			return nil, errors.New("make a reference of stored rows: they differ in size")
		}
		cols.F32, cols.F64 = append(cols.F32, f.F32...), append(cols.F64, f.F64...)
		cols.I64, cols.Str = append(cols.I64, f.I64...), append(cols.Str, f.Str...)
		scores[i], decided[i] = rows[i].Score, rows[i].Decided
	}
	return stats.NewReference(collector.StatColumns(v.Schema, v.Info.Task, cols, len(rows), scores, decided), source)
}
