package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/collector/spool"
)

// deadCommand looks at dead letters and drives them again.
func deadCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "dead", Short: "Records that the store refuses for what is in them: list, show, edit, drive again",
		Long: `Records that the store refuses for what is in them are set aside as dead letters,
so that all others go on. Once the cause is mended they are driven again; a letter
goes when it is stored.`,
		Example: "  pellucid spool dead list\n  pellucid spool dead drive --all", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	list := &cobra.Command{
		Use: "list", Short: "List dead letters, of a running server or of a folder", Args: noArgs,
		Example: "  pellucid spool dead list --dir pellucid-data/spool/dead",
		RunE: func(cmd *cobra.Command, _ []string) error {
			letters, err := deadOf(cmd)
			if err != nil {
				return err
			}
			for _, l := range letters {
				fmt.Fprintf(cmd.OutOrStdout(), "%s %s %s %s%s model=%q id=%q rows=%d tries=%d%s\n", l.ID, l.At.Format(time.RFC3339), l.Insert, l.Reason,
					inBrackets(l.Detail), l.Model, l.Record, l.Rows, l.Tries, map[bool]string{true: " driving"}[l.Driving])
			}
			return nil
		},
	}
	show := &cobra.Command{
		Use: "show ID", Short: "Show one dead letter as JSON; from a folder without what is in it", Args: oneArg("id of a dead letter"),
		Long:    "Shows one dead letter as JSON; from a folder without what is in it. The beginning of an id is enough where no other has it.",
		Example: "  pellucid spool dead show 3f2a...",
		RunE:    func(cmd *cobra.Command, args []string) error { return showDead(cmd, args[0]) },
	}
	for _, c := range []*cobra.Command{list, show} {
		c.Flags().String("dir", "", "folder of dead letters, instead of a running server")
		c.Flags().String("url", "http://"+defaults().HTTP, "the server")
	}
	var all, without bool
	drive := &cobra.Command{
		Use: "drive [ID...]", Short: "Send dead letters to the store once more, by id or --all",
		Example: "  pellucid spool dead drive --without-features 3f2a...",
		RunE: func(cmd *cobra.Command, args []string) error {
			if all == (len(args) > 0) {
				return usage(errors.New("name dead letters by id, or say --all"))
			}
			var got struct{ Driven int }
			body := map[string]any{"without_features": without}
			if all {
				body["all"] = true
			} else {
				body["ids"] = args
			}
			if err := askServer(cmd, http.MethodPost, "/api/v1/dead-letters/drive", body, &got); err != nil {
				return err
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "%d on their way; a letter goes when it is stored\n", got.Driven)
			return err
		},
	}
	drive.Flags().BoolVar(&all, "all", false, "all there are")
	drive.Flags().BoolVar(&without, "without-features", false, "cut the features out of predictions first")
	drive.Flags().String("url", "http://"+defaults().HTTP, "the server")
	cmd.AddCommand(list, show, drive, editCommand())
	return cmd
}

// editCommand changes one letter.
func editCommand() *cobra.Command {
	var set, drop []string
	row := -1
	cmd := &cobra.Command{
		Use: "edit ID --set FEATURE=VALUE", Short: "Change values of one dead letter and send it to the store once more", Args: oneArg("id of a dead letter"),
		Long: `Changes features of a prediction, or of a letter of feedback its label (label=VALUE),
and drives the letter. A prediction's label has been stored without it, or is a letter of
its own: it is changed there, or by another label for the prediction's id. A feature
that is dropped is missing. What was changed is marked redacted in the prediction, and
is in the audit log without its value. Private features cannot be changed: drive
--without-features leaves all of them out.`,
		Example: "  pellucid spool dead edit 3f2a... --set country=SE --drop income\n  pellucid spool dead edit 3f2a... --set label=yes",
		RunE: func(cmd *cobra.Command, args []string) error {
			edit := map[string]any{"drop": drop}
			values := map[string]string{}
			for _, s := range set {
				name, value, ok := strings.Cut(s, "=")
				if _, twice := values[name]; !ok || twice {
					return usage(errors.New("--set takes FEATURE=VALUE, each feature once"))
				}
				values[name] = value
			}
			if len(values)+len(drop) == 0 {
				return usage(errors.New("say what to change: --set or --drop"))
			}
			edit["set"] = values
			if cmd.Flags().Changed("row") {
				edit["row"] = row
			}
			letters, err := deadOf(cmd)
			if err != nil {
				return err
			}
			l, err := namedDead(letters, args[0])
			if err != nil {
				return err
			}
			var got struct{ Driven int }
			if err := askServer(cmd, http.MethodPost, "/api/v1/dead-letters/drive", map[string]any{"ids": []string{l.ID}, "edit": edit}, &got); err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), "changed and on its way; the letter goes when it is stored")
			return err
		},
	}
	cmd.Flags().StringArrayVar(&set, "set", nil, "FEATURE=VALUE, or label=VALUE")
	cmd.Flags().StringArrayVar(&drop, "drop", nil, "feature that is to be missing")
	cmd.Flags().IntVar(&row, "row", row, "row of a prediction of several, from 0")
	cmd.Flags().String("url", "http://"+defaults().HTTP, "the server")
	return cmd
}

func inBrackets(s string) string {
	if s == "" {
		return ""
	}
	return "(" + s + ")"
}

func deadOf(cmd *cobra.Command) ([]collector.DeadLetter, error) {
	if dir, _ := cmd.Flags().GetString("dir"); dir != "" {
		if !exists(dir) {
			return nil, fmt.Errorf("read dead letters: there is no folder %q", dir)
		}
		return spool.ReadDead(dir)
	}
	var out []collector.DeadLetter
	for {
		var page struct {
			Letters []collector.DeadLetter `json:"dead_letters"`
			Count   int                    `json:"count"`
		}
		if err := askServer(cmd, http.MethodGet, "/api/v1/dead-letters?limit=1000&offset="+strconv.Itoa(len(out)), nil, &page); err != nil {
			return nil, err
		}
		if out = append(out, page.Letters...); len(page.Letters) == 0 || len(out) >= page.Count {
			return out, nil
		}
	}
}

// namedDead is the letter that an id, or the beginning of one, means.
func namedDead(letters []collector.DeadLetter, id string) (*collector.DeadLetter, error) {
	if i := slices.IndexFunc(letters, func(l collector.DeadLetter) bool { return l.ID == id }); i >= 0 {
		return &letters[i], nil
	}
	var found *collector.DeadLetter
	for i := range letters {
		l := &letters[i]
		switch {
		case id == "" || !strings.HasPrefix(l.ID, id):
		case found != nil:
			return nil, usage(fmt.Errorf("dead letters %s and %s begin with %q: say more of it", found.ID, l.ID, id))
		default:
			found = l
		}
	}
	if found == nil {
		return nil, fmt.Errorf("dead letter %q: %w", id, collector.ErrNotFound)
	}
	return found, nil
}

func showDead(cmd *cobra.Command, id string) error {
	letters, err := deadOf(cmd)
	if err != nil {
		return err
	}
	l, err := namedDead(letters, id)
	if err != nil {
		return err
	}
	var doc any
	if dir, _ := cmd.Flags().GetString("dir"); dir != "" {
		doc = l
	} else if err := askServer(cmd, http.MethodGet, "/api/v1/dead-letters/"+url.PathEscape(l.ID), nil, &doc); err != nil {
		return err
	}
	enc := json.NewEncoder(cmd.OutOrStdout())
	enc.SetIndent("", "  ")
	return enc.Encode(doc)
}

// askServer sends one request of JSON to the server that --url names.
func askServer(cmd *cobra.Command, method, path string, body, answer any) error {
	server, err := cmd.Flags().GetString("url")
	if err != nil {
		return err
	}
	var send io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return err
		}
		send = bytes.NewReader(b)
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, server+path, send)
	if err != nil {
		return usage(err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("ask the server: %w", err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 64<<20))
	if err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		var failed struct{ Error string }
		if json.Unmarshal(b, &failed) != nil || failed.Error == "" {
			failed.Error = resp.Status
		}
		return fmt.Errorf("the server refuses: %s", failed.Error)
	}
	if err := json.Unmarshal(b, answer); err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	return nil
}
