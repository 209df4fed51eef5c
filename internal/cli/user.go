package cli

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
)

const rolesText = `  read       see everything but the text of the cluster file, which may hold secrets
  operate    start, stop and move groups, suspend monitors, maintenance, mirror disks
  request    ask linked clusters
  fence      force nodes and guests off, and let a node start alone
  configure  see and change the cluster file, links, tokens and users

No role includes another. Who has the role configure gives and takes the roles that
he has himself; root on a node gives and takes all.`

func (p *program) user() *cobra.Command {
	c := &cobra.Command{Use: "user", Short: "See and change who may sign in to the console",
		Long: `Users sign in to the console with a password and may do what their roles say:

` + rolesText + `

All nodes know the same users. Scripts have tokens instead: tasuki token add.`,
		Example: `  tasuki user add ann --roles read,operate
  tasuki user list`}
	c.AddCommand(p.listUsers(), p.addUser(), p.passwd(), p.userRoles(), p.removeUser())
	return c
}

func (p *program) listUsers() *cobra.Command {
	return p.jsonFlag(&cobra.Command{Use: "list", Short: "Show all users and their roles", Long: "Show all users, their roles, and when their passwords were set.",
		Example: "  tasuki user list", Args: args(0, 0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			list, err := p.client().Users(cmd.Context())
			if err != nil {
				return err
			}
			if p.asJSON {
				return p.json(list)
			}
			if len(list) == 0 {
				fmt.Fprintln(p.out, "there are no users: tasuki user add NAME --roles ROLES")
			}
			for _, u := range list {
				fmt.Fprintf(p.out, "  %-16s %-40s password of %s\n", u.Name, roleList(u.Roles), day(u.Changed))
			}
			return nil
		}})
}

func (p *program) addUser() *cobra.Command {
	var u api.UserNew
	var roles []string
	var stdin bool
	c := &cobra.Command{Use: "add NAME --roles ROLES", Short: "Add a user",
		Long:    "Add a user with a password of at least 8 bytes, which is asked for, and roles:\n\n" + rolesText,
		Example: "  tasuki user add ann --roles read,operate\n  pwgen 20 1 | tasuki user add ann --roles read --password-stdin", Args: args(1, 1, "a name"),
		RunE: func(cmd *cobra.Command, a []string) (err error) {
			if len(roles) == 0 {
				return usageError{errors.New("name the roles: --roles read,operate")}
			}
			u.Name, u.Roles = cluster.UserName(a[0]), rolesOf(roles)
			if u.Password, err = p.password(stdin); err != nil {
				return err
			}
			return p.say(p.client().AddUser(cmd.Context(), u))
		}}
	p.rolesFlag(c, &roles)
	stdinFlag(c, &stdin)
	return c
}

func (p *program) passwd() *cobra.Command {
	var stdin bool
	c := &cobra.Command{Use: "passwd NAME", Short: "Set the password of a user", Long: "Set the password of a user, which is asked for. Sessions of that user end.",
		Example: "  tasuki user passwd ann", Args: args(1, 1, "a user; tasuki user list shows them"), ValidArgsFunction: p.completeUsers,
		RunE: func(cmd *cobra.Command, a []string) error {
			password, err := p.password(stdin)
			if err != nil {
				return err
			}
			return p.say(p.client().SetPassword(cmd.Context(), cluster.UserName(a[0]), api.UserPassword{Password: password}))
		}}
	stdinFlag(c, &stdin)
	return c
}

func (p *program) userRoles() *cobra.Command {
	return &cobra.Command{Use: "roles NAME ROLES", Short: "Set the roles of a user", Long: "Set the roles of a user, who has these and no others from then on:\n\n" + rolesText,
		Example: "  tasuki user roles ann read,operate,fence", Args: args(2, 2, "a user and roles"), ValidArgsFunction: p.completeUsers,
		RunE: func(cmd *cobra.Command, a []string) error {
			return p.say(p.client().SetRoles(cmd.Context(), cluster.UserName(a[0]), api.UserRoles{Roles: rolesOf(strings.Split(a[1], ","))}))
		}}
}

func (p *program) removeUser() *cobra.Command {
	return &cobra.Command{Use: "remove NAME", Short: "Remove a user", Long: "Remove a user, whose sessions end. Tokens that the user made stay.",
		Example: "  tasuki user remove ann", Args: args(1, 1, "a user; tasuki user list shows them"), ValidArgsFunction: p.completeUsers,
		RunE: func(cmd *cobra.Command, a []string) error {
			return p.say(p.client().RemoveUser(cmd.Context(), cluster.UserName(a[0])))
		}}
}

func (p *program) listAccesses() *cobra.Command {
	return p.jsonFlag(&cobra.Command{Use: "list", Short: "Show the tokens of scripts", Long: "Show the tokens of scripts: what each is for, its roles, and until when it is good.",
		Example: "  tasuki token list", Args: args(0, 0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			list, err := p.client().Accesses(cmd.Context())
			if err != nil {
				return err
			}
			if p.asJSON {
				return p.json(list)
			}
			if len(list) == 0 {
				fmt.Fprintln(p.out, "there are no tokens of scripts: tasuki token add NAME --roles ROLES")
			}
			for _, a := range list {
				fmt.Fprintf(p.out, "  %s  %-16s %-40s until %s, by %s\n", a.ID, a.Name, roleList(a.Roles), day(a.Expires), a.Author)
			}
			return nil
		}})
}

func (p *program) addAccess() *cobra.Command {
	var n api.AccessNew
	var roles []string
	c := p.jsonFlag(&cobra.Command{Use: "add NAME --roles ROLES", Short: "Make a token with which a script calls the API",
		Long: `Print a token, which cannot be had again, for a script that calls the API of any
node; the name says what it is for. It may do what its roles say:

` + rolesText + `

A script shows it with every call: Authorization: Bearer TOKEN. See docs/api.md.`,
		Example: "  tasuki token add backup --roles read,operate --ttl 8760h", Args: args(1, 1, "a name"),
		RunE: func(cmd *cobra.Command, a []string) error {
			if len(roles) == 0 {
				return usageError{errors.New("name the roles: --roles read,operate")}
			}
			n.Name, n.Roles = a[0], rolesOf(roles)
			t, err := p.client().AddAccess(cmd.Context(), n)
			if err != nil {
				return err
			}
			if p.asJSON {
				return p.json(t)
			}
			fmt.Fprintln(p.out, t.Token)
			return nil
		}})
	p.rolesFlag(c, &roles)
	c.Flags().DurationVar(&n.TTL, "ttl", 90*24*time.Hour, "how long it is good, at most two years")
	return c
}

func (p *program) removeAccess() *cobra.Command {
	return &cobra.Command{Use: "remove ID", Short: "Remove a token of a script", Long: "Remove a token of a script, which is good for nothing from then on.",
		Example: "  tasuki token remove 2b1c0d5e6f708192", Args: args(1, 1, "an id; tasuki token list shows them"), ValidArgsFunction: p.completeAccesses,
		RunE: func(cmd *cobra.Command, a []string) error {
			return p.say(p.client().RemoveAccess(cmd.Context(), a[0]))
		}}
}

// say prints what an operation has come to.
func (p *program) say(b api.Begun, err error) error {
	if err == nil {
		fmt.Fprintln(p.out, b.Text)
	}
	return err
}

func (p *program) rolesFlag(c *cobra.Command, roles *[]string) {
	c.Flags().StringSliceVar(roles, "roles", nil, "what it may do, separated by commas")
	_ = c.RegisterFlagCompletionFunc("roles", cobra.FixedCompletions(strings.Split(strings.ReplaceAll(roleList(cluster.Roles()), " ", ""), ","), cobra.ShellCompDirectiveNoFileComp))
}

func stdinFlag(c *cobra.Command, stdin *bool) {
	c.Flags().BoolVar(stdin, "password-stdin", false, "read the password from standard input, up to the end of the line")
}

func rolesOf(texts []string) (out []cluster.Role) {
	for _, t := range texts {
		out = append(out, cluster.Role(strings.TrimSpace(t)))
	}
	return out
}

func roleList(roles []cluster.Role) string {
	texts := make([]string, len(roles))
	for i, r := range roles {
		texts[i] = string(r)
	}
	return strings.Join(texts, ", ")
}

func day(t time.Time) string { return t.Local().Format("2006/01/02") }

// maxPassword bounds what is read of a password, in bytes.
const maxPassword = 1024

// password reads a new password: twice from the terminal, which does not show it,
// or one line of standard input.
func (p *program) password(stdin bool) (string, error) {
	if stdin {
		line, err := bufio.NewReader(io.LimitReader(p.in, maxPassword)).ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return "", fmt.Errorf("read the password: %w", err)
		}
		return strings.TrimRight(line, "\r\n"), nil
	}
	f, is := p.in.(*os.File)
	if !is || !term.IsTerminal(int(f.Fd())) {
		return "", usageError{errors.New("there is no terminal to ask for the password: --password-stdin reads it from standard input")}
	}
	loud, err := hush(int(f.Fd()))
	if err != nil {
		return "", fmt.Errorf("ask for the password without showing it: %w", err)
	}
	defer loud()
	var given [2]string
	for i, what := range []string{"New password: ", "Once more: "} {
		fmt.Fprint(p.err, what)
		text, err := term.ReadPassword(int(f.Fd()))
		fmt.Fprintln(p.err)
		if err != nil {
			return "", fmt.Errorf("read the password: %w", err)
		}
		given[i] = string(text)
	}
	if given[0] != given[1] {
		return "", &api.Error{Code: "bad-password", Message: "the two passwords differ", Hint: "nothing was changed; try again"}
	}
	return given[0], nil
}

// hush has a terminal not show what is typed, also not what is typed before it is
// asked for, until loud is called.
func hush(fd int) (loud func(), err error) {
	was, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return nil, err
	}
	now := *was
	now.Lflag &^= unix.ECHO
	return func() { _ = unix.IoctlSetTermios(fd, unix.TCSETS, was) }, unix.IoctlSetTermios(fd, unix.TCSETS, &now)
}

// completeUsers returns the names of the users; it gives up soon.
func (p *program) completeUsers(cmd *cobra.Command, a []string, _ string) (out []string, _ cobra.ShellCompDirective) {
	if len(a) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	ctx, cancel := completing(cmd.Context())
	defer cancel()
	list, _ := p.client().Users(ctx)
	for _, u := range list {
		out = append(out, string(u.Name))
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}

// completeAccesses returns the ids of the tokens with what they are for.
func (p *program) completeAccesses(cmd *cobra.Command, a []string, _ string) (out []string, _ cobra.ShellCompDirective) {
	if len(a) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	ctx, cancel := completing(cmd.Context())
	defer cancel()
	list, _ := p.client().Accesses(ctx)
	for _, t := range list {
		out = append(out, t.ID+"\t"+t.Name)
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}
