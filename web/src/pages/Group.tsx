export default function Group() { return null; }
