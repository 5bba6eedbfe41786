package embedded

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// connectionFile is where a folder keeps its ports and passwords, mode 0600.
const connectionFile = "connection.json"

// Env is how to reach a folder's engine. The app user reads, writes and
// migrates; the console user only reads, within limits, and is the one to give
// to people and dashboards.
type Env struct {
	Host     string `json:"host"`
	Port     int    `json:"port"`
	HTTPPort int    `json:"http_port"`
	Database string `json:"database"`
	User     string `json:"user"`
	Password string `json:"password"`

	ConsoleUser     string `json:"console_user"`
	ConsolePassword string `json:"console_password"`
	AdminUser       string `json:"admin_user"`
	AdminPassword   string `json:"admin_password"`
}

// Address returns host:port of the native protocol.
func (e Env) Address() string { return net.JoinHostPort(e.Host, strconv.Itoa(e.Port)) }

// HTTPAddress returns host:port of the HTTP protocol.
func (e Env) HTTPAddress() string { return net.JoinHostPort(e.Host, strconv.Itoa(e.HTTPPort)) }

// DSN returns the address of the native protocol with the app user's name and
// password in it: a secret.
func (e Env) DSN() string { return e.dsn(e.User, e.Password, e.Database) }

// AdminDSN is DSN for the admin user and another database.
func (e Env) AdminDSN(database string) string {
	return e.dsn(e.AdminUser, e.AdminPassword, database)
}

func (e Env) dsn(user, password, database string) string {
	u := url.URL{Scheme: "clickhouse", User: url.UserPassword(user, password), Host: e.Address(), Path: "/" + database}
	return u.String()
}

// ReadEnv reads the connection of the folder's engine, which another process may
// be running. The file is readable by its owner only.
func ReadEnv(dir string) (Env, error) {
	var e Env
	data, err := os.ReadFile(filepath.Join(dir, connectionFile))
	if err != nil {
		return e, fmt.Errorf("read the embedded engine's connection: %w", err)
	}
	if err := json.Unmarshal(data, &e); err != nil {
		return e, fmt.Errorf("read %q: %w: %w", filepath.Join(dir, connectionFile), errDamaged, err)
	}
	if e.Password == "" || e.AdminPassword == "" || e.ConsolePassword == "" {
		return e, fmt.Errorf("read %q: %w: a password is missing", filepath.Join(dir, connectionFile), errDamaged)
	}
	return e, nil
}

// errDamaged is of a file that is not whole.
var errDamaged = errors.New("it is damaged")

// loadEnv reads the folder's connection or makes a new one, also in place of one that is
// damaged: the passwords are of use to nobody else, and the engine is told them at each start.
// It sees to it that its ports can be bound now.
func loadEnv(dir string, newPorts bool) (Env, error) {
	e, err := ReadEnv(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, errDamaged):
		e = Env{
			Database: "default", User: "app", ConsoleUser: "console", AdminUser: "admin",
			Password: rand.Text(), ConsolePassword: rand.Text(), AdminPassword: rand.Text(),
		}
		newPorts = true
	case err != nil:
		return e, err
	}
	e.Host = "127.0.0.1"
	if newPorts || !awaitPorts(e) {
		if e.Port, e.HTTPPort, err = freePorts(); err != nil {
			return e, err
		}
	}
	data, err := json.MarshalIndent(e, "", "  ")
	if err != nil {
		return e, fmt.Errorf("encode connection: %w", err)
	}
	return e, writePrivate(filepath.Join(dir, connectionFile), append(data, '\n'))
}

// awaitPorts waits a moment for the folder's ports: after a kill of parent and
// child the kernel closes the child's sockets a little later.
func awaitPorts(e Env) bool {
	for range 100 {
		if portFree(e.Port) && portFree(e.HTTPPort) {
			return true
		}
		time.Sleep(20 * time.Millisecond)
	}
	return false
}

func portFree(port int) bool {
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return false
	}
	return l.Close() == nil
}

func freePorts() (tcp, http int, err error) {
	var ports [2]int
	for i := range ports {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return 0, 0, fmt.Errorf("find a free port: %w", err)
		}
		defer l.Close() //nolint:errcheck // held until both are chosen, so that they differ
		ports[i] = l.Addr().(*net.TCPAddr).Port
	}
	return ports[0], ports[1], nil
}

// writePrivate replaces a file atomically with mode 0600. One that has that content
// already stays as it is: a start on a full disk has no room for another.
func writePrivate(path string, data []byte) error {
	if have, err := os.ReadFile(path); err == nil && bytes.Equal(have, data) {
		if err := os.Chmod(path, 0o600); err != nil {
			return fmt.Errorf("write %q: %w", path, err)
		}
		return nil
	}
	temp := path + ".new"
	if err := os.WriteFile(temp, data, 0o600); err != nil {
		// What was written of it is not to take the little room that may be left.
		return errors.Join(fmt.Errorf("write %q: %w", path, err), removed(temp))
	}
	if err := os.Chmod(temp, 0o600); err != nil {
		return fmt.Errorf("write %q: %w", path, err)
	}
	if err := os.Rename(temp, path); err != nil {
		return fmt.Errorf("write %q: %w", path, err)
	}
	return nil
}

// removed deletes a file that may not be there.
func removed(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove %q: %w", path, err)
	}
	return nil
}

// writeConfig writes the engine's own two configuration files.
func writeConfig(cfg Config, env Env, server bool) error {
	main := configXML(cfg, env, server)
	if err := writePrivate(filepath.Join(cfg.Dir, "config.xml"), main); err != nil {
		return err
	}
	return writePrivate(filepath.Join(cfg.Dir, "users.xml"), usersXML(cfg, env, server))
}

func escape(s string) string {
	var b bytes.Buffer
	// EscapeText fails only when the writer does, and a Buffer never does.
	_ = xml.EscapeText(&b, []byte(s))
	return b.String()
}

func configXML(cfg Config, env Env, server bool) []byte {
	var b strings.Builder
	dir := escape(cfg.Dir)
	fmt.Fprintf(&b, `<clickhouse>
  <users_config>%[1]s/users.xml</users_config>
  <logger><level>information</level><console>1</console><color_terminal>0</color_terminal></logger>
  <memory_worker_use_cgroup>0</memory_worker_use_cgroup>
  <max_server_memory_usage>%[2]d</max_server_memory_usage>
  <mark_cache_size>33554432</mark_cache_size><index_mark_cache_size>8388608</index_mark_cache_size>
  <uncompressed_cache_size>0</uncompressed_cache_size><index_uncompressed_cache_size>0</index_uncompressed_cache_size>
  <primary_index_cache_size>33554432</primary_index_cache_size><mmap_cache_size>64</mmap_cache_size>
  <compiled_expression_cache_size>16777216</compiled_expression_cache_size>
  <background_pool_size>2</background_pool_size><background_schedule_pool_size>4</background_schedule_pool_size>
  <background_fetches_pool_size>2</background_fetches_pool_size><max_connections>64</max_connections>
  <backups><allowed_path>%[1]s/backup/</allowed_path></backups>
`, dir, cfg.MemoryBytes)
	if server {
		fmt.Fprintf(&b, `  <path>%[1]s/data/</path><tmp_path>%[1]s/data/tmp/</tmp_path><user_files_path>%[1]s/data/user_files/</user_files_path>
  <listen_host>127.0.0.1</listen_host><tcp_port>%[2]d</tcp_port><http_port>%[3]d</http_port>
  <default_profile>default</default_profile><default_database>default</default_database>
`, dir, env.Port, env.HTTPPort)
	}
	// On a full disk the server may commit a part that is not whole, a merge's even
	// where it is synced. So parts are not begun where the disk is nearly full, are
	// synced, and what a merge was made of stays for a while: after a full disk the
	// child is started again (pressure.go), and then takes it for a damaged merge.
	fmt.Fprintf(&b, `  <merge_tree>
    <old_parts_lifetime>480</old_parts_lifetime><fsync_after_insert>1</fsync_after_insert><fsync_part_directory>1</fsync_part_directory>
    <min_rows_to_fsync_after_merge>1</min_rows_to_fsync_after_merge>
    <min_compressed_bytes_to_fsync_after_merge>1</min_compressed_bytes_to_fsync_after_merge>
  </merge_tree>
  <storage_configuration><disks><default><keep_free_space_bytes>%d</keep_free_space_bytes></default></disks></storage_configuration>
`, KeepFree(cfg.Dir))
	b.WriteString(cfg.Extra)
	b.WriteString("</clickhouse>\n")
	return []byte(b.String())
}

// appGrants are what the schema needs beyond its databases, each found by the
// engine's refusal without it.
var appGrants = []string{
	"TABLE ENGINE ON MergeTree", "TABLE ENGINE ON ReplacingMergeTree", "TABLE ENGINE ON SummingMergeTree",
	"TABLE ENGINE ON AggregatingMergeTree", "TABLE ENGINE ON Memory", "TABLE ENGINE ON Null",
	"CREATE TEMPORARY TABLE ON *.*", "KILL QUERY ON *.*",
	"SELECT ON system.parts", "SELECT ON system.mutations", "SELECT ON system.processes",
	"SELECT ON system.merge_tree_settings", "SELECT ON system.disks", "SELECT ON system.detached_parts",
}

func usersXML(cfg Config, env Env, server bool) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, `<clickhouse>
  <profiles>
    <default><max_threads>%d</max_threads></default>
    <boot><max_sessions_for_user>1</max_sessions_for_user></boot>
    <console>
      <readonly>2</readonly><max_execution_time>5</max_execution_time><max_memory_usage>200000000</max_memory_usage>
      <max_result_rows>1000</max_result_rows><result_overflow_mode>throw</result_overflow_mode>
      <constraints>
        <max_execution_time><min>1</min><max>5</max></max_execution_time>
        <max_memory_usage><min>1</min><max>200000000</max></max_memory_usage>
        <max_result_rows><min>1</min><max>1000</max></max_result_rows>
        <max_threads><max>2</max></max_threads><result_overflow_mode><const/></result_overflow_mode>
      </constraints>
    </console>
  </profiles>
  <users>
`, cfg.Threads)
	if !server {
		// The library's own session always logs in as default with no password;
		// its profile lets in that one session and so shuts out the network.
		b.WriteString(`    <default><password></password><profile>boot</profile><quota>default</quota>` +
			`<networks><ip>127.0.0.1</ip></networks><grants>` +
			grants([]string{"SYSTEM LISTEN ON *.*", "CREATE ARBITRARY TEMPORARY TABLE ON *.*", "READ ON FILE", "TABLE ENGINE ON File"}) +
			"</grants></default>\n")
	}
	user := func(name, password, profile, rest string) {
		sum := sha256.Sum256([]byte(password))
		fmt.Fprintf(&b, "    <%s><password_sha256_hex>%s</password_sha256_hex><profile>%s</profile><quota>default</quota>"+
			"<networks><ip>127.0.0.1</ip></networks>%s</%s>\n", name, hex.EncodeToString(sum[:]), profile, rest, name)
	}
	app, console := append([]string{"ALL ON default.*"}, appGrants...), []string{"SELECT ON default.*"}
	for _, d := range cfg.Databases {
		app = append(app, "ALL ON "+d+".*")
		console = append(console, "SELECT ON "+d+".*")
	}
	user(env.AdminUser, env.AdminPassword, "default", "<access_management>1</access_management>")
	user(env.User, env.Password, "default", "<grants>"+grants(app)+"</grants>")
	user(env.ConsoleUser, env.ConsolePassword, "console", "<grants>"+grants(console)+"</grants>")
	b.WriteString("  </users>\n  <quotas><default/></quotas>\n</clickhouse>\n")
	return []byte(b.String())
}

func grants(list []string) string {
	var b strings.Builder
	for _, g := range list {
		b.WriteString("<query>GRANT " + g + "</query>")
	}
	return b.String()
}
