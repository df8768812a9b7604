// Package spec holds the nouns that the rooms of Sluice share: Model, Service, Version
// (an Entry of a service), Instance, Policy, Credential, Secret and Snapshot, with their
// validation. It imports the standard library only. Values are plain data: whoever
// publishes one must not change it afterwards.
package spec
