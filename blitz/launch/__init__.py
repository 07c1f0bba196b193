"""Where a run happens: in this process or on Ray. The only room that imports ray."""
