package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/spf13/cobra"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/collector/audit"
	"github.com/pellucid/pellucid/collector/keys"
	"github.com/pellucid/pellucid/collector/proxy/events"
)

// hashKey returns the secret of fields that are private by hash: 32 bytes in
// hexadecimal in a file of the owner's. Without a file named in the configuration
// it is made once, in the data folder.
func (c *config) hashKey() func() ([]byte, error) {
	var mu sync.Mutex // guards known
	var known []byte
	return func() ([]byte, error) {
		mu.Lock()
		defer mu.Unlock()
		if known != nil {
			return known, nil
		}
		// An error is not kept: a full disk may have room the next time.
		if path := c.Capture.KeyFile; path != "" {
			key, err := keys.ReadSecret(path)
			known = key
			return key, err
		}
		key, err := keys.KeepSecret(c.privateKey())
		known = key
		return key, err
	}
}

func (c *config) privateKey() string { return filepath.Join(c.Data, "private.key") }

// keyConfig says where the key-encryption key comes from.
type keyConfig struct {
	File    string   `yaml:"file"`
	Env     string   `yaml:"env"`
	Command []string `yaml:"command"`
}

func (k keyConfig) source() keys.Source { return keys.Source(k) }

// keysDir is where the keys of sealed fields are.
func (c *config) keysDir() string { return filepath.Join(c.Data, "keys") }

// keysMark is what says from outside of that folder which keys have to be in it.
func (c *config) keysMark() string { return filepath.Join(c.Data, "keys.id") }

// keysMade reports whether there are keys, or have to be.
func (c *config) keysMade() bool { return exists(c.keysDir()) || exists(c.keysMark()) }

func (c *config) openKeys(ctx context.Context, told func(error)) (*keys.Ring, error) {
	kek, err := c.Capture.Key.source().Key(ctx)
	if err != nil {
		return nil, err
	}
	return keys.Open(keys.Config{Dir: c.keysDir(), KEK: kek, Mark: c.keysMark(), Told: told})
}

// keysNamed refuses sealed features where nothing says what the keys are wrapped by.
// Whether they can be had is found out when a version is met: without them it alone is
// not served.
func (c *config) keysNamed(m *collector.ModelConfig) error {
	k := c.Capture.Key
	if k.File != "" || k.Env != "" || len(k.Command) > 0 {
		return nil
	}
	for _, f := range m.Features {
		if f.Private == collector.PrivacySeal {
			return fmt.Errorf("feature %q: private: seal: %w", f.Name, keys.ErrNoSource)
		}
	}
	return nil
}

// keyRetry is how long a failure to open the keys by a command is believed; a file or a
// variable costs nothing to look at again.
const keyRetry = 30 * time.Second

// keyring opens the keys of sealed fields when they are first needed, and again some
// time after that failed: the command that has the key may have been away.
type keyring struct {
	cfg  *config
	told func(error)

	mu     sync.Mutex
	ring   *keys.Ring
	err    error
	failed time.Time
	closed bool
}

func (k *keyring) open() (*keys.Ring, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case k.closed:
		return nil, errors.New("the keys are closed: the server stops")
	case k.ring != nil:
		return k.ring, nil
	case k.err != nil && len(k.cfg.Capture.Key.Command) > 0 && time.Since(k.failed) < keyRetry:
		return nil, k.err
	}
	k.ring, k.err = k.cfg.openKeys(context.Background(), k.told)
	k.failed = time.Now()
	return k.ring, k.err
}

// keys is open for those who know the interface only.
func (k *keyring) keys() (collector.Keyring, error) {
	r, err := k.open()
	if err != nil {
		return nil, err // not a nil ring in an interface
	}
	return r, nil
}

// has reports whether the keys are open, wherever their folder has gone.
func (k *keyring) has() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.ring != nil
}

func (k *keyring) close() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.closed = true
	if k.ring == nil {
		return nil
	}
	return k.ring.Close()
}

// forget deletes the key of a subject and returns how many there were. Where nothing
// was ever sealed there is none. Halves of predictions about the subject that wait for the other
// go too: they would be sealed under a new key.
func (s *server) forget(ctx context.Context, tenant, subject string) (deleted, halves int, err error) {
	held, err := s.holdSubject(ctx, subject)
	if err != nil {
		return 0, 0, err
	}
	defer held.Release()
	if s.cfg.keysMade() || s.keyring.has() {
		r, err := s.keyring.open()
		if err != nil {
			return 0, 0, err
		}
		if deleted, err = r.Forget(ctx, tenant, subject); err != nil {
			return deleted, 0, err
		}
	}
	left, err := held.Delete()
	halves = held.Len() - int(left)
	if err == nil && left > 0 {
		err = fmt.Errorf("%d halves of CloudEvents about the subject are left", left)
	}
	return deleted, halves, err
}

// holdSubject holds the waiting halves of requests with rows about a subject.
func (s *server) holdSubject(ctx context.Context, subject string) (*events.Held, error) {
	return s.events.Hold(ctx, func(h *events.Half) (bool, error) {
		v, err := s.models.Known(h.Model, h.Version)
		if err != nil || h.Half != "request" {
			return false, nil //nolint:nilerr // of no model there is no subject
		}
		for i := range v.Schema.Features {
			f := &v.Schema.Features[i]
			if f.Subject && slices.ContainsFunc(h.Rows, func(row map[string]json.RawMessage) bool { return f.SubjectOf(row[f.Name]) == subject }) {
				return true, nil
			}
		}
		return false, nil
	})
}

// registerKeys lets the keys be kept while the server has them.
func (s *server) registerKeys(e *echo.Echo) {
	e.POST("/api/v1/keys/rotate", s.administer("keys.rotate", func(ctx context.Context, _ string) (any, error) {
		r, err := s.keyring.open()
		if err != nil {
			return nil, err
		}
		return map[string]string{"rotated": collector.DefaultTenant},
			s.act(ctx, audit.Entry{Action: "keys.rotate", Tenant: collector.DefaultTenant}, func() error { return r.Rotate(collector.DefaultTenant) })
	}))
	e.POST("/api/v1/keys/forget", s.administer("keys.forget", func(ctx context.Context, subject string) (any, error) {
		if subject == "" {
			return nil, usage(errors.New("subject is missing"))
		}
		n, halves := 0, 0
		err := s.act(ctx, audit.Entry{Action: "keys.forget", Tenant: collector.DefaultTenant, Object: "subject " + s.audit.Hash(subject)}, func() (err error) {
			n, halves, err = s.forget(ctx, collector.DefaultTenant, subject)
			return err
		})
		return map[string]int{"deleted": n, countHalves: halves}, err
	}))
}

// administer answers a request of who may unseal; the refusal of another is recorded
// before it is told. No answer repeats the subject.
func (s *server) administer(action string, do func(ctx context.Context, subject string) (any, error)) echo.HandlerFunc {
	return func(c echo.Context) error {
		said := func(status int, err error) error { return c.JSON(status, map[string]string{"error": err.Error()}) }
		ctx := c.Request().Context()
		if !mayUnseal(ctx) {
			// What was asked for is not read: it is a stranger's, and may be long.
			if err := s.audited().refused(ctx, action, "", "", errMayNotUnseal); !errors.Is(err, errMayNotUnseal) {
				s.log.ErrorContext(ctx, "keep the keys", "path", c.Path(), "error", err)
				return said(http.StatusServiceUnavailable, err)
			}
			return said(http.StatusForbidden, errMayNotUnseal)
		}
		var body struct {
			Subject string `json:"subject"`
		}
		d := json.NewDecoder(http.MaxBytesReader(c.Response(), c.Request().Body, 64<<10))
		d.DisallowUnknownFields()
		if err := d.Decode(&body); err != nil && !errors.Is(err, io.EOF) {
			return said(http.StatusBadRequest, errors.New("the body is not an object with at most a subject"))
		}
		answer, err := do(ctx, body.Subject)
		var bad usageError
		switch {
		case errors.As(err, &bad):
			return said(http.StatusBadRequest, err)
		case err != nil:
			s.log.ErrorContext(ctx, "keep the keys", "path", c.Path(), "error", err)
			return said(http.StatusServiceUnavailable, err)
		}
		return c.JSON(http.StatusOK, answer)
	}
}

// checkKeys holds the folder of keys against what says what has to be in it.
func checkKeys(_ context.Context, p patient) (string, error) {
	if !p.keysMade() {
		return "none yet", nil
	}
	found, err := keys.Check(keys.Config{Dir: p.keysDir(), Mark: p.keysMark()})
	if err != nil {
		return "", err
	}
	said := fmt.Sprintf("those of %d tenants and %d subjects are there", found.Tenants, found.Subjects)
	if !found.Marked && found.Tenants > 0 {
		return "", fmt.Errorf("%s, but %s is gone or empty: nothing would tell that the folder of keys has gone until a start that needs the keys writes it again", said, filepath.Base(p.keysMark()))
	}
	if !found.Counted && found.Subjects > 0 {
		said += "; what would tell that some are taken out is made by the next start"
	}
	return said, nil
}

// checkPrivateKey holds the secret of hashed fields against what tells it from others.
func checkPrivateKey(_ context.Context, p patient) (string, error) {
	if path := p.Capture.KeyFile; path != "" {
		_, err := keys.ReadSecret(path)
		return "the one of capture.key_file can be read", err
	}
	there, err := keys.CheckSecret(p.privateKey())
	if !there {
		return "none yet", err
	}
	return "it is the one by which values are stored", err
}

func keysCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "keys", Short: "Keep the keys of sealed fields (private: seal)",
		Long: `Keeps the keys that fields with private: seal are sealed with. They lie in the
folder keys of the data folder, wrapped by the key-encryption key that capture.key
in the configuration names. Only one process may have them: these commands are for
a server that is stopped, whose audit log they write to. A running one takes

  curl -X POST 127.0.0.1:8080/api/v1/keys/rotate
  curl -X POST 127.0.0.1:8080/api/v1/keys/forget -d '{"subject": "customer-17"}'`,
		Example: `  head -c 32 /dev/urandom | base64 > /etc/pellucid/kek     # a key-encryption key
  pellucid keys list --config pellucid.yaml
  pellucid keys rotate --config pellucid.yaml              # a new data key for new rows
  pellucid keys rewrap --config pellucid.yaml --to /etc/pellucid/kek.new
  pellucid keys forget --config pellucid.yaml --subject customer-17`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(keysList(), keysRotate(), keysRewrap(), keysForget())
	return cmd
}

// withKeys runs f on the keys that the flags mean.
func withKeys(cmd *cobra.Command, f func(cfg *config, r *keys.Ring) error) error {
	cfg, err := loadConfig(cmd.Flags(), os.Getenv)
	if err != nil {
		return err
	}
	if !cfg.keysMade() {
		return fmt.Errorf("there are no keys in %q: nothing was sealed yet", cfg.Data)
	}
	r, err := cfg.openKeys(cmd.Context(), func(err error) { fmt.Fprintln(cmd.ErrOrStderr(), "keys:", err) })
	if err != nil {
		return err
	}
	return errors.Join(f(&cfg, r), r.Close())
}

// changeKeys has the keys changed, which is recorded before it is done, and says what
// was. subject, if any, is in the log as a keyed hash.
func changeKeys(cmd *cobra.Command, e audit.Entry, subject string, change func(r *keys.Ring) (said string, err error)) error {
	return withKeys(cmd, func(cfg *config, r *keys.Ring) error {
		ctx := collector.WithActor(cmd.Context(), "command line")
		record, done, err := cfg.offlineAudit(ctx)
		if err != nil {
			return err
		}
		said := ""
		var object func(hash func(string) string) string
		if subject != "" {
			object = func(hash func(string) string) string { return "subject " + hash(subject) }
		}
		err = record(e, object, func() (err error) { said, err = change(r); return err })
		if err = errors.Join(err, done()); err != nil {
			return err
		}
		_, err = fmt.Fprintln(cmd.OutOrStdout(), said)
		return err
	})
}

func keyFlags(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().String("config", "", "the server's configuration file")
	cmd.Flags().String("data", defaults().Data, "the server's data folder")
	return cmd
}

func keysList() *cobra.Command {
	return keyFlags(&cobra.Command{
		Use: "list", Short: "Name the keys, without telling them (the server stopped)",
		Long:    "Names the keys, without telling them. A server that has them is to be stopped first.",
		Example: "  pellucid keys list --config pellucid.yaml", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withKeys(cmd, func(_ *config, r *keys.Ring) error {
				list, err := r.List()
				if err != nil {
					return err
				}
				out := cmd.OutOrStdout()
				fmt.Fprintf(out, "key-encryption key %s\n", r.KEKID())
				for _, t := range list {
					fmt.Fprintf(out, "tenant %s: %d subjects with a key of their own\n", t.Tenant, t.Subjects)
					for i, d := range t.Data {
						use := "opens"
						if i == len(t.Data)-1 {
							use = "seals"
						}
						fmt.Fprintf(out, "  data key %s of %s %s\n", d.ID, d.Created.Format(time.RFC3339), use)
					}
				}
				return nil
			})
		},
	})
}

func keysRotate() *cobra.Command {
	var tenant string
	cmd := keyFlags(&cobra.Command{
		Use: "rotate", Short: "Make a new data key for new rows (the server stopped)",
		Long: `Makes a new data key for what a tenant's rows seal from now on. What the older
keys sealed stays readable. A server that has the keys is to be stopped first, or
does it itself: curl -X POST 127.0.0.1:8080/api/v1/keys/rotate`,
		Example: "  pellucid keys rotate --config pellucid.yaml", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return changeKeys(cmd, audit.Entry{Action: "keys.rotate", Tenant: tenant}, "", func(r *keys.Ring) (string, error) {
				return "rows of tenant " + tenant + " are sealed with a new data key from now on", r.Rotate(tenant)
			})
		},
	})
	cmd.Flags().StringVar(&tenant, "tenant", collector.DefaultTenant, "whose data key")
	return cmd
}

func keysRewrap() *cobra.Command {
	var to keyConfig
	var program string
	cmd := keyFlags(&cobra.Command{
		Use: "rewrap --to FILE", Short: "Wrap all keys with another key-encryption key (the server stopped)",
		Long: `Wraps all keys with another key-encryption key, in one step: the old one opens
nothing from then on. Name the new one in capture.key before the next start. A
server that has the keys is to be stopped first.`,
		Example: `  pellucid keys rewrap --config pellucid.yaml --to /etc/pellucid/kek.new
  pellucid keys rewrap --config pellucid.yaml --to-env NEW_KEK
  pellucid keys rewrap --config pellucid.yaml --to-command "/usr/local/bin/kms decrypt kek.2"`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			to.Command = strings.Fields(program)
			if err := to.source().Validate(); err != nil {
				return usage(fmt.Errorf("the new key: %w", err))
			}
			kek, err := to.source().Key(cmd.Context())
			if errors.Is(err, keys.ErrNoSource) {
				return usage(errors.New("say where the new key is: --to, --to-env or --to-command"))
			}
			if err != nil {
				return fmt.Errorf("the new key: %w", err)
			}
			return changeKeys(cmd, audit.Entry{Action: "keys.rewrap"}, "", func(r *keys.Ring) (string, error) {
				err := r.Rewrap(kek)
				return "all keys are wrapped by key-encryption key " + r.KEKID() + ": name it in capture.key before the next start", err
			})
		},
	})
	f := cmd.Flags()
	f.StringVar(&to.File, "to", "", "file of the new key-encryption key")
	f.StringVar(&to.Env, "to-env", "", "environment variable of the new key-encryption key")
	f.StringVar(&program, "to-command", "", "command that prints the new key-encryption key (no shell reads it)")
	return cmd
}

func keysForget() *cobra.Command {
	var tenant, subject string
	cmd := keyFlags(&cobra.Command{
		Use: "forget --subject NAME", Short: "Delete the key of a subject: what it sealed is gone for ever (the server stopped)",
		Long: `Deletes the key of a subject, which is a value of the feature that model.yaml names
as subject. What was sealed with it can never be read again, in the store, the spool
and every copy of them. Halves of CloudEvents that wait for the other are sealed when they
are recorded: a running server deletes the person's, this command does not. Only a copy of the folder of keys itself would still have it:
do not keep such copies for longer than a forgotten person may be remembered. A
server that has the keys is to be stopped first, or does it itself:
curl -X POST 127.0.0.1:8080/api/v1/keys/forget -d '{"subject": "customer-17"}'`,
		Example: "  pellucid keys forget --config pellucid.yaml --subject customer-17", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := required(cmd, "subject"); err != nil {
				return err
			}
			return changeKeys(cmd, audit.Entry{Action: "keys.forget", Tenant: tenant}, subject, func(r *keys.Ring) (string, error) {
				n, err := r.Forget(cmd.Context(), tenant, subject)
				return fmt.Sprintf("keys deleted: %d", n), err
			})
		},
	})
	cmd.Flags().StringVar(&tenant, "tenant", collector.DefaultTenant, "whose rows are about the subject")
	cmd.Flags().StringVar(&subject, "subject", "", "the subject, as the feature says it")
	return cmd
}
