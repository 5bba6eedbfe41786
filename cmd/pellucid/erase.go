package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pellucid/pellucid/dashboards/api"
)

// subjectFlags name whose rows are meant.
func subjectFlags(cmd *cobra.Command, x *api.Subject, url *string) {
	f := cmd.Flags()
	f.StringVar(&x.ExternalID, "external-id", "", "the caller's own id")
	f.StringVar(&x.PredictionID, "prediction-id", "", "the id of a request, or of one row of it")
	f.StringVar(url, "url", "http://"+defaults().HTTP, "the running server")
}

func eraseCommand() *cobra.Command {
	var r api.ErasureRequest
	var url string
	var yes bool
	cmd := &cobra.Command{
		Use: "erase", Short: "Delete everything stored of one subject, with proof",
		Long: `Asks the running server to delete predictions, labels, explanations, spans,
undecodable records, dead letters and waiting halves of predictions of a subject, and
prints how many of each there were and are. It counts first, and deletes when you
have said yes to the count. A dead letter, and a half, goes with all its rows.

A filter's values for features that are private by hash are the clear ones. Rows
whose features are not stored, or are masked or sealed, cannot be found by a filter
that names one: how many there are is said.`,
		Example: `  pellucid erase --external-id customer-17 --dry-run
  pellucid erase --external-id customer-17 --model loans --yes
  pellucid erase --model loans --where "customer_id = 'x'" --forget x`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return erase(cmd, &subjectClient{strings.TrimRight(url, "/")}, r, yes)
		},
	}
	subjectFlags(cmd, &r.Subject, &url)
	cmd.Flags().StringVar(&r.Model, "model", "", "only of this model")
	cmd.Flags().StringVar(&r.Where, "where", "", "the predictions of --model that this filter selects")
	cmd.Flags().StringVar(&r.Forget, "forget", "", "also delete the key of this subject, as the feature has it that model.yaml names as subject")
	cmd.Flags().BoolVar(&r.DryRun, "dry-run", false, "only count")
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return cmd
}

func erase(cmd *cobra.Command, to *subjectClient, r api.ErasureRequest, yes bool) error {
	ctx, out := cmd.Context(), cmd.OutOrStdout()
	dry := r
	dry.DryRun = true
	found, err := to.erase(ctx, dry)
	if err != nil {
		return err
	}
	fmt.Fprintln(out, counted("found", found.Before))
	if found.Unsearched > 0 {
		fmt.Fprintln(out, counted("cannot be searched, and may be the subject's", found.UnsearchedIn))
	}
	if r.DryRun {
		if found.Pending {
			fmt.Fprintln(out, "records are on their way to the store: there may be more")
		}
		return nil
	}
	if !yes {
		fmt.Fprint(out, "delete them? This cannot be undone. [yes/no] ")
		line, err := bufio.NewReader(cmd.InOrStdin()).ReadString('\n')
		if strings.TrimSpace(line) != "yes" {
			if errors.Is(err, io.EOF) && line == "" {
				return usage(errors.New("erase: nobody there to say yes: give --yes"))
			}
			return errors.New("erase: not confirmed, nothing was deleted")
		}
	}
	n := found.Before["predictions"]
	r.Expect = &n
	done, err := to.erase(ctx, r)
	switch {
	case err != nil:
		return err
	case done.Pending:
		return errors.New("erase: records are on their way to the store, and nothing was deleted: try again when it has them")
	}
	fmt.Fprintln(out, counted("left", done.After))
	if r.Forget != "" {
		fmt.Fprintf(out, "keys deleted: %d\n", done.Keys)
	}
	if done.FilesGoneBy != nil {
		fmt.Fprintf(out, "the files they were in are gone by %s\n", done.FilesGoneBy.Format(time.RFC3339))
	}
	for _, s := range done.Stays {
		fmt.Fprintln(out, "stays:", s)
	}
	for table, n := range done.After {
		if n > 0 {
			return fmt.Errorf("erase: %d rows of %s are left", n, table)
		}
	}
	return nil
}

func counted(what string, counts map[string]int64) string {
	parts := []string{what + ":"}
	for _, table := range slices.Sorted(maps.Keys(counts)) {
		parts = append(parts, fmt.Sprintf("%s %d", table, counts[table]))
	}
	return strings.Join(parts, " ")
}

// subjectClient asks a running server about a subject. An erasure may take long, and
// is not sent twice.
type subjectClient struct{ url string }

func (c *subjectClient) post(ctx context.Context, path string, body any) (*http.Response, error) {
	b, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url+path, bytes.NewReader(b))
	if err != nil {
		return nil, usage(fmt.Errorf("--url: %w", err))
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask the server: %w (is it running? --url says where)", err)
	}
	if resp.StatusCode < 300 {
		return resp, nil
	}
	defer resp.Body.Close()
	var said struct {
		Error string `json:"error"`
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil || json.Unmarshal(text, &said) != nil || said.Error == "" {
		return nil, fmt.Errorf("ask the server: status %d", resp.StatusCode)
	}
	err = errors.New(said.Error)
	if resp.StatusCode == http.StatusBadRequest {
		return nil, usage(err)
	}
	return nil, err
}

func (c *subjectClient) erase(ctx context.Context, r api.ErasureRequest) (api.Erasure, error) {
	var out api.Erasure
	resp, err := c.post(ctx, "/api/v1/subjects/erase", r)
	if err != nil {
		return out, err
	}
	defer resp.Body.Close()
	return out, json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&out)
}

// export copies what the server has of a subject, line by line; it fails where the
// last line says that the server could not go on.
func (c *subjectClient) export(ctx context.Context, x api.Subject, w io.Writer) error {
	resp, err := c.post(ctx, "/api/v1/subjects/export", x)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	r := bufio.NewReaderSize(resp.Body, 64<<10)
	for {
		line, err := r.ReadBytes('\n')
		if errors.Is(err, io.EOF) && len(line) == 0 {
			return nil
		}
		if err != nil {
			return fmt.Errorf("export a subject: %w", err)
		}
		if bytes.HasPrefix(line, []byte(`{"error":`)) {
			return fmt.Errorf("export a subject: it is not all: %s", bytes.TrimSpace(line))
		}
		if _, err := w.Write(line); err != nil {
			return err
		}
	}
}
