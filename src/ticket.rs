//! The normalised view of one incident, request, change, problem or case, at one version.
//!
//! A [`Ticket`] is what one event says: a field that the event does not carry is `None` and leaves what is held as it
//! is. Profiles make tickets, the classifier reads their texts, the ledger keeps the rest.

use compact_str::CompactString;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A closed set of names that serve as label values, in configuration files and in output.
macro_rules! names {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum $name { $($(#[$vdoc])* $variant,)+ }

        impl $name {
            /// Every value, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];
            /// Every name, in the same order.
            pub const NAMES: &'static [&'static str] = &[$($text,)+];

            /// The name as used in labels, files and output.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }

            /// The value of that name, if there is one.
            pub fn from_name(name: &str) -> Option<Self> {
                match name { $($text => Some(Self::$variant),)+ _ => None }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }
    };
}
pub(crate) use names;

names! {
    /// What sort of work a ticket is.
    Kind {
        /// Something is broken.
        Incident = "incident",
        /// Somebody wants something.
        Request = "request",
        /// A planned change.
        Change = "change",
        /// The cause behind incidents.
        Problem = "problem",
        /// A customer's case.
        Case = "case",
        /// A part of another ticket, or none of the above.
        Task = "task",
    }
}

names! {
    /// Where a ticket is in its life.
    State {
        /// Not yet taken up.
        New = "new",
        /// Being worked on.
        Open = "open",
        /// Waiting for somebody or something.
        Pending = "pending",
        /// Solved, not yet confirmed.
        Resolved = "resolved",
        /// Finished.
        Closed = "closed",
        /// Ended without being done.
        Cancelled = "cancelled",
    }
}

impl State {
    /// Whether somebody still has to do something.
    pub fn is_open(self) -> bool {
        matches!(self, Self::New | Self::Open | Self::Pending)
    }
}

names! {
    /// The tag: whether the work on a ticket reaches the external customer.
    Affects {
        /// It reaches the people outside the company who buy and use its products.
        Customer = "customer",
        /// It stops inside the company.
        Internal = "internal",
    }
}

names! {
    /// The fields of a ticket in which rules look for their phrases.
    TextField {
        /// The headline.
        Summary = "summary",
        /// The body.
        Description = "description",
        /// The category path.
        Category = "category",
        /// The team that has it.
        Group = "group",
        /// The service as sent.
        Service = "service",
        /// The configuration item as sent.
        Ci = "ci",
    }
}

/// Which of two versions of a ticket is newer. What both have decides: first the count, then the time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// A number that the vendor raises with each update, such as ServiceNow's `sys_mod_count`.
    pub count: Option<i64>,
    /// When the update was made, in milliseconds since 1970.
    pub time: Option<i64>,
}

/// A ticket, or the part of it that one event carries.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ticket {
    /// The vendor's lasting identity: sys_id, Jira issue id; the id where there is nothing better.
    pub key: CompactString,
    /// What people see: number, issue key. Absent in events that know only the key.
    pub id: Option<CompactString>,
    /// Which of two events is newer; `None` for events that carry increments of effort only.
    pub version: Option<Version>,
    /// What sort of work it is.
    pub kind: Option<Kind>,
    /// The event does not say so: the kind is what the profile assumes, and does not replace one that is known.
    pub kind_assumed: bool,
    /// Where it is in its life.
    pub state: Option<State>,
    /// The headline, as sent.
    pub summary: Option<String>,
    /// The body, as sent; structured documents are flattened to text.
    pub description: Option<String>,
    /// Who wants it: a name, login or id.
    pub requester: Option<String>,
    /// The requester's e-mail address.
    pub requester_email: Option<String>,
    /// The requester's organisation: name or id.
    pub organization: Option<String>,
    /// What the profile makes of the requester: from outside the company or not.
    pub requester_external: Option<bool>,
    /// The service, as sent: name, or the bare id.
    pub service: Option<CompactString>,
    /// The configuration item, as sent: name, or the bare id.
    pub ci: Option<CompactString>,
    /// The category, its levels joined by ` / `.
    pub category: Option<CompactString>,
    /// The team that has the ticket.
    pub group: Option<CompactString>,
    /// The priority, as sent.
    pub priority: Option<CompactString>,
    /// When it was opened.
    pub opened_at: Option<Timestamp>,
    /// When this version was made.
    pub updated_at: Option<Timestamp>,
    /// When it was resolved (some systems send this before it is).
    pub resolved_at: Option<Timestamp>,
    /// All effort logged so far, in seconds.
    pub effort_seconds: Option<u64>,
    /// Single pieces of work that the event carries.
    pub worklogs: Vec<Worklog>,
    /// How often the vendor says it was re-opened.
    pub reopened: Option<u32>,
    /// Whether a person made this update; `false` for monitoring, integrations and rules.
    pub by_person: bool,
    /// The tag a person or a field of the ITSM declares.
    pub declared: Option<Affects>,
    /// The ticket was deleted.
    pub deleted: bool,
    /// The key or id of the ticket that this one was merged into.
    pub merged_into: Option<CompactString>,
    /// The key or id of the ticket that this one continues.
    pub follows: Option<CompactString>,
}

/// One piece of logged work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Worklog {
    /// Its identity at the vendor.
    pub id: CompactString,
    /// Work in seconds; 0 when it was deleted.
    pub seconds: u64,
    /// Which of two versions of it is newer.
    pub version: Version,
}

impl Ticket {
    /// The text of one field, if the event carries it.
    pub fn text(&self, field: TextField) -> Option<&str> {
        match field {
            TextField::Summary => self.summary.as_deref(),
            TextField::Description => self.description.as_deref(),
            TextField::Category => self.category.as_deref(),
            TextField::Group => self.group.as_deref(),
            TextField::Service => self.service.as_deref(),
            TextField::Ci => self.ci.as_deref(),
        }
    }

    /// Lets go of what is looked at for evidence alone: texts are most of a ticket's memory.
    pub fn drop_evidence(&mut self) {
        (self.summary, self.description) = (None, None);
        (self.requester, self.requester_email, self.organization) = (None, None, None);
        (self.category, self.priority) = (None, None);
    }
}
