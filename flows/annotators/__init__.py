"""Who annotates: people, or an oracle that plays one."""
