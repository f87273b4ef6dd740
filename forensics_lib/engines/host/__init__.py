"""What a host tells around its containers: who it was, what its daemons logged, what was typed and audited."""
