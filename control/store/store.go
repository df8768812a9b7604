package store

import (
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/sluice-gateway/sluice/spec"
)

// DefaultPrefix is where the state lives in etcd.
const DefaultPrefix = "/sluice/v1/"

// Kinds, for Changed.
const (
	KindDomains       = "domains"
	KindProjects      = "projects"
	KindUsers         = "users"
	KindModels        = "models"
	KindServices      = "services"
	KindServiceStates = "service-states"
	KindInstances     = "instances"
	KindEvents        = "events"
	KindUpdateLogs    = "update-logs"
	KindAccessKeys    = "access-keys"
	KindApps          = "apps"
	KindAppAPIs       = "app-apis"
	KindTokenKeys     = "token-keys"
	KindRevocations   = "revocations"
	KindIndex         = "index"
)

const (
	eventsKept     = 1000 // per service
	updateLogsKept = 200  // per service
)

// Store is the whole state.
type Store struct {
	cli    *clientv3.Client
	prefix string

	Domains  Collection[spec.Domain]
	Projects Collection[spec.Project]
	Users    Collection[spec.User]

	Models   Collection[spec.Model]
	Services Collection[spec.Service]
	// ServiceStates has the same ids as Services; the rollout runner writes it.
	ServiceStates Collection[spec.ServiceState]
	// Instances has ids "<service id>/<instance id>".
	Instances Collection[spec.Instance]
	// Events and UpdateLogs are journals of service ids.
	Events Journal[spec.Event]
	// UpdateLogs are numbered by the generation of the service.
	UpdateLogs Journal[spec.UpdateLog]

	AccessKeys  Collection[spec.AccessKey] // by access key
	Apps        Collection[spec.App]
	AppAPIs     Collection[spec.AppAPI]
	TokenKeys   Collection[spec.SigningKey]
	Revocations Collection[spec.Revocation] // by token id; written with PutTTL

	// Index keeps names unique: a document id under a key made by IndexKey.
	Index Collection[string]
}

// Prefix is where the keys of this state begin; it ends with a slash.
func (s *Store) Prefix() string { return s.prefix }

// New returns the state that cli reaches under prefix; "" means DefaultPrefix.
func New(cli *clientv3.Client, prefix string) *Store {
	if prefix == "" {
		prefix = DefaultPrefix
	}

	if !strings.HasSuffix(prefix, "/") {
		prefix += "/"
	}

	return &Store{
		cli:    cli,
		prefix: prefix,

		Domains:       newCollection[spec.Domain](cli, prefix, KindDomains),
		Projects:      newCollection[spec.Project](cli, prefix, KindProjects),
		Users:         newCollection[spec.User](cli, prefix, KindUsers),
		Models:        newCollection[spec.Model](cli, prefix, KindModels),
		Services:      newCollection[spec.Service](cli, prefix, KindServices),
		ServiceStates: newCollection[spec.ServiceState](cli, prefix, KindServiceStates),
		Instances:     newCollection[spec.Instance](cli, prefix, KindInstances),
		Events: Journal[spec.Event]{
			entries: newCollection[spec.Event](cli, prefix, KindEvents), keep: eventsKept,
		},
		UpdateLogs: Journal[spec.UpdateLog]{
			entries: newCollection[spec.UpdateLog](cli, prefix, KindUpdateLogs), keep: updateLogsKept,
		},
		AccessKeys:  newCollection[spec.AccessKey](cli, prefix, KindAccessKeys),
		Apps:        newCollection[spec.App](cli, prefix, KindApps),
		AppAPIs:     newCollection[spec.AppAPI](cli, prefix, KindAppAPIs),
		TokenKeys:   newCollection[spec.SigningKey](cli, prefix, KindTokenKeys),
		Revocations: newCollection[spec.Revocation](cli, prefix, KindRevocations),
		Index:       newCollection[string](cli, prefix, KindIndex),
	}
}

// Client is the etcd client, for leader election.
func (s *Store) Client() *clientv3.Client { return s.cli }

// IndexKey makes the id of an index entry. Parts may hold any character.
func IndexKey(name string, parts ...string) string {
	var b strings.Builder

	b.WriteString(name)

	for _, p := range parts {
		b.WriteByte('/')
		b.WriteString(indexEscaper.Replace(p))
	}

	return b.String()
}

//nolint:gochecknoglobals // immutable
var indexEscaper = strings.NewReplacer("%", "%25", "/", "%2F")

// Names of indexes.
const (
	IndexModel   = "model"   // project id, name, version
	IndexService = "service" // project id, name
	IndexUser    = "user"    // domain id, name
	IndexProject = "project" // domain id, name
	IndexDomain  = "domain"  // name
	IndexApp     = "app"     // project id, name
	IndexAppAPI  = "app-api" // service id
)
