// Package keys holds the keys of sealed fields: one root and any number of data keys a
// tenant, and one key of its own for every subject (a person) that a tenant's rows
// are about. It implements collector.Keyring.
//
// Keys are random and lie in a folder of their own, wrapped: those of a tenant by the
// key-encryption key, which comes from outside and is never written, those of
// subjects by a key that the tenant's root makes. What a subject's key sealed is gone
// for ever, wherever it was copied to, once Forget has taken the key out of its file.
//
// A key is on disk, synced, before anything is sealed with it. The folder is one
// process's: a lock holds others off. What cannot be read, or was wrapped by another
// key-encryption key, is refused whole; nothing is ever made anew in its place. Nor is what
// somebody took away: a mark outside the folder names the tenants' roots, counts in it how
// many subjects' keys there are at least, an older copy of the folder is known by the number
// of changes it has seen, and what goes while in use is written again.
//
// The package never logs, and no error of it holds a key, a value, a subject or what
// a key command printed. FORMAT.md in collector draws the files and the sealed values.
package keys
